//! Checkpoints (C2SP tlog-checkpoint) and the rule that no two of them may ever disagree.
//!
//! [`Notary`] is the only place that signs one. It signs a head only after it has checked a consistency proof
//! between that head and the newest one before, and gives no signature away that its keeper did not make durable first;
//! inside the process one may be shown before ([`Draft::note`]).

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use crate::{
    Error,
    hash::Hash,
    note::{Note, VerifierKey},
    port::{HashReader, HeadKeeper, NoteSigner},
    proof::{prove_consistency, verify_consistency},
};

/// Size and root of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of leaves.
    pub size: u64,
    /// Root hash.
    pub root: Hash,
}

impl Head {
    /// The head of the tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self { size: 0, root: Hash::of_empty_tree() }
    }
}

/// The body of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's identity.
    pub origin: String,
    /// Size and root.
    pub head: Head,
}

impl Checkpoint {
    /// Reads a checkpoint body. Extension lines are accepted and ignored, as the specification demands.
    ///
    /// # Errors
    /// [`Error::CheckpointMalformed`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed = |why| Error::CheckpointMalformed { why };
        let text = text.strip_suffix('\n').ok_or_else(|| malformed("it does not end in a newline"))?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(malformed("it has fewer than three lines"));
        };
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(malformed("a line is empty"));
        }
        let size = parse_decimal(size).ok_or_else(|| malformed("the size is no plain decimal number"))?;
        let root = Hash::from_base64(root).map_err(|_| malformed("the root is no base64 SHA-256 hash"))?;
        Ok(Self { origin: origin.to_owned(), head: Head { size, root } })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\n{}\n{}", self.origin, self.head.size, self.head.root);
        text
    }

    /// Reads a signed checkpoint and checks that `key`, whose name is the origin, signed it.
    ///
    /// # Errors
    /// If it does not parse, is of another log, or the signature is missing or wrong.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, Error> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(Error::OriginDiffers { found: checkpoint.origin, expected: key.name().to_owned() })
        }
    }
}

/// ASCII decimal, no sign, no leading zeroes.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}

/// Signs checkpoints of one log, never two that disagree.
///
/// Signing has two steps, so that whoever checks a head need not wait for the disk of whoever keeps another one:
/// [`Notary::draft`] works on hashes and holds its lock for them only, [`Notary::keep`] waits for the keeper.
pub struct Notary<K> {
    signer: Box<dyn NoteSigner>,
    /// The newest head that was ever signed, as far as anything that survived can tell, or is about to be.
    newest: Mutex<Head>,
    kept: Mutex<Kept<K>>,
}

/// What is durable.
struct Kept<K> {
    keeper: K,
    newest: Head,
}

/// A signed head that is not durable yet. To give it away, take it from [`Notary::keep`].
pub struct Draft {
    head: Head,
    note: Vec<u8>,
}

impl Draft {
    /// The head.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The signed checkpoint, not read back yet, for whoever checks it inside this process. INVARIANT(kept-before-seen): neither it nor
    /// anything that was made because of it leaves the process before [`Notary::keep`] gave it.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        &self.note
    }
}

impl<K: HeadKeeper> Notary<K> {
    /// A notary that remembers `newest`, which recovery found (see `recover`).
    pub fn new(signer: Box<dyn NoteSigner>, keeper: K, newest: Head) -> Self {
        Self { signer, newest: Mutex::new(newest), kept: Mutex::new(Kept { keeper, newest }) }
    }

    /// The key that verifies what this notary signs; its name is the log's origin.
    pub fn verifier(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// The newest head that was signed or drafted.
    pub fn newest(&self) -> Head {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs `head`. `reader` must be able to prove it consistent with the newest head that was signed or drafted; an
    /// older head of the same history may be signed too.
    ///
    /// INVARIANT(one-history): a head counts from its draft on, so that no two drafts at the same time can disagree. One
    /// that never becomes durable counts all the same: it was committed before, and nobody saw its signature.
    ///
    /// # Errors
    /// [`Error::Fork`] if consistency does not hold; otherwise as reader or signer fail.
    pub fn draft(&self, head: Head, reader: &impl HashReader) -> Result<Draft, Error> {
        // Poison carries no news: the head is replaced as a whole, after all that can fail.
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        refuse_fork(*newest, head, reader)?;
        let note = signed(head, self.signer.as_ref())?.encode();
        if head.size > newest.size {
            *newest = head;
        }
        Ok(Draft { head, note })
    }

    /// Makes a draft durable and gives the signed checkpoint, once it was read back as a stranger would: a signer that
    /// returned garbage is found here, not by an auditor.
    ///
    /// # Errors
    /// [`Error::SigningFailed`], or as the keeper fails. No signature leaves then.
    pub fn keep(&self, draft: Draft) -> Result<Vec<u8>, Error> {
        read_back(&draft.note, draft.head, self.verifier())?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if draft.head.size >= kept.newest.size {
            // Crash before this line: nobody has seen the signature. Crash after it: the keeper knows a head
            // that nobody has seen, which is true all the same, since the head was committed before.
            kept.keeper.keep(draft.head, &draft.note)?;
            kept.newest = draft.head;
        }
        Ok(draft.note)
    }
}

fn refuse_fork(newest: Head, head: Head, reader: &impl HashReader) -> Result<(), Error> {
    let (old, new) = if head.size < newest.size { (head, newest) } else { (newest, head) };
    let path = prove_consistency(reader, old.size, new.size)?;
    verify_consistency(&path, (old.size, old.root), (new.size, new.root))
        .map_err(|_| Error::Fork { signed: newest, proposed: head })
}

/// The signed checkpoint of the empty tree. It is consistent with everything, so it may always be signed; a
/// new log's anchor begins with it.
///
/// # Errors
/// As the signer fails.
pub fn sign_empty(signer: &dyn NoteSigner) -> Result<Vec<u8>, Error> {
    let note = signed(Head::empty(), signer)?.encode();
    read_back(&note, Head::empty(), signer.verifier())?;
    Ok(note)
}

fn signed(head: Head, signer: &dyn NoteSigner) -> Result<Note, Error> {
    let mut note = Note::new(Checkpoint { origin: signer.verifier().name().to_owned(), head }.text())?;
    note.sign(signer)?;
    Ok(note)
}

fn read_back(note: &[u8], head: Head, key: &VerifierKey) -> Result<(), Error> {
    if Checkpoint::open(note, key)?.head == head { Ok(()) } else { Err(Error::SigningFailed) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn body_round_trips_and_other_spellings_are_refused() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse(text).unwrap();
        assert_eq!((checkpoint.head.size, checkpoint.text()), (20_852_163, text.to_owned()));
        Checkpoint::parse(&format!("{text}extension\n")).unwrap();
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for bad in [
            String::new(),
            format!("o\n1\n{root}"),
            format!("\n1\n{root}\n"),
            format!("o\n01\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n1\n{root}\n\n"),
            "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n".to_owned(),
            "o\n1\n\n".to_owned(),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }

    struct Garbage(crate::note::Ed25519Signer);

    impl NoteSigner for Garbage {
        fn verifier(&self) -> &VerifierKey {
            self.0.verifier()
        }

        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
            Ok(vec![7; 64])
        }
    }

    struct Kept(std::sync::Arc<std::sync::atomic::AtomicU64>);

    impl HeadKeeper for Kept {
        fn keep(&mut self, _: Head, _: &[u8]) -> Result<(), Error> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn what_a_broken_signer_made_is_neither_kept_nor_given_away() {
        let kept = std::sync::Arc::default();
        let signer = crate::note::Ed25519Signer::from_seed("log.test", &zeroize::Zeroizing::new([7; 32])).unwrap();
        let notary = Notary::new(Box::new(Garbage(signer)), Kept(std::sync::Arc::clone(&kept)), Head::empty());
        let nothing = crate::tree::Tail::new(crate::tree::Frontier::default());
        let tiles = crate::reader::Tiles::new(crate::directory::Directory::new("/nowhere"));
        let draft = notary.draft(Head::empty(), &crate::reader::Committed::new(&nothing, &tiles, 0)).unwrap();
        assert!(Checkpoint::open(draft.note(), notary.verifier()).is_err(), "a gate that it is shown refuses it");
        assert!(notary.keep(draft).is_err());
        assert_eq!(kept.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

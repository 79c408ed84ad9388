//! Checkpoints (C2SP tlog-checkpoint) and the rule that no two of them may ever disagree.
//!
//! [`Notary`] is the only place that signs one. It signs a head only after it has checked a consistency proof
//! between that head and the newest one that it signed before, and lets nothing out that its keeper did not
//! make durable first.

use std::fmt::Write as _;

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
pub struct Notary<K> {
    signer: Box<dyn NoteSigner>,
    keeper: K,
    /// The newest head that was ever signed, as far as anything that survived can tell.
    newest: Head,
}

impl<K: HeadKeeper> Notary<K> {
    /// A notary that remembers `newest`, which recovery found (see `recover`).
    pub fn new(signer: Box<dyn NoteSigner>, keeper: K, newest: Head) -> Self {
        Self { signer, keeper, newest }
    }

    /// The key that verifies what this notary signs; its name is the log's origin.
    pub fn verifier(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// The newest head that was signed.
    pub const fn newest(&self) -> Head {
        self.newest
    }

    /// Signs `head`. `reader` must be able to prove it consistent with the newest signed head; an older head
    /// of the same history may be signed too.
    ///
    /// # Errors
    /// [`Error::Fork`] if consistency does not hold; otherwise as reader, signer or keeper fail. On error no
    /// signature leaves.
    pub fn sign(&mut self, head: Head, reader: &impl HashReader) -> Result<Vec<u8>, Error> {
        self.refuse_fork(head, reader)?;
        let bytes = signed(head, self.signer.as_ref())?;
        if head.size >= self.newest.size {
            // Crash before this line: nobody has seen the signature. Crash after it: the keeper knows a head
            // that nobody has seen, which is true all the same, since the head was committed before.
            self.keeper.keep(head, &bytes)?;
            self.newest = head;
        }
        Ok(bytes)
    }

    fn refuse_fork(&self, head: Head, reader: &impl HashReader) -> Result<(), Error> {
        let (old, new) = if head.size < self.newest.size { (head, self.newest) } else { (self.newest, head) };
        let path = prove_consistency(reader, old.size, new.size)?;
        verify_consistency(&path, (old.size, old.root), (new.size, new.root))
            .map_err(|_| Error::Fork { signed: self.newest, proposed: head })
    }
}

/// The signed checkpoint of the empty tree. It is consistent with everything, so it may always be signed; a
/// new log's anchor begins with it.
///
/// # Errors
/// As the signer fails.
pub fn sign_empty(signer: &dyn NoteSigner) -> Result<Vec<u8>, Error> {
    signed(Head::empty(), signer)
}

fn signed(head: Head, signer: &dyn NoteSigner) -> Result<Vec<u8>, Error> {
    let checkpoint = Checkpoint { origin: signer.verifier().name().to_owned(), head };
    let mut note = Note::new(checkpoint.text())?;
    note.sign(signer)?;
    let bytes = note.encode();
    // Read back as a stranger would: a signer that returned garbage is found here, not by an auditor.
    if Checkpoint::open(&bytes, signer.verifier())? == checkpoint { Ok(bytes) } else { Err(Error::SigningFailed) }
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
}

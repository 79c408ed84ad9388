//! Proof files (C2SP tlog-proof, `c2sp.org/tlog-proof@v1`): index, inclusion proof and signed checkpoint of
//! one entry, to be checked offline by somebody who has the entry and a trust policy.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    Error,
    checkpoint::parse_decimal,
    hash::Hash,
    note::NOTE_LEN_MAX,
    proof::{PROOF_LEN_MAX, verify_inclusion},
    trust::{TrustPolicy, Trusted},
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Largest proof file that is parsed; the extra data may be an entry.
pub const RECEIPT_LEN_MAX: usize = NOTE_LEN_MAX + 128 * 1024;

/// Evidence that an entry is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Data of the application that nothing authenticates. Never trust it.
    pub extra: Option<Vec<u8>>,
    /// Index of the entry.
    pub index: u64,
    /// Inclusion proof, the leaf's sibling first.
    pub path: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: Vec<u8>,
}

impl Receipt {
    /// The file's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            out.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        out.push_str(&format!("index {}\n", self.index));
        for hash in &self.path {
            out.push_str(&format!("{hash}\n"));
        }
        out.push('\n');
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.checkpoint);
        out
    }

    /// Reads a proof file. Nothing is verified yet.
    ///
    /// # Errors
    /// [`Error::ReceiptMalformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |why| Error::ReceiptMalformed { why };
        if bytes.len() > RECEIPT_LEN_MAX {
            return Err(malformed("it is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(malformed("the first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let mut next = lines.next();
        let extra = match next.and_then(|line| line.strip_prefix("extra ")) {
            Some(base64) => {
                next = lines.next();
                Some(STANDARD.decode(base64).map_err(|_| malformed("the extra data is not base64"))?)
            }
            None => None,
        };
        let index = next.and_then(|line| line.strip_prefix("index ")).and_then(parse_decimal);
        let index = index.ok_or_else(|| malformed("the index line is missing or no plain number"))?;
        let path: Vec<_> = lines.take(PROOF_LEN_MAX + 1).map(Hash::from_base64).collect::<Result<_, _>>()?;
        if path.len() > PROOF_LEN_MAX {
            return Err(malformed("the proof is too long"));
        }
        Ok(Self { extra, index, path, checkpoint: checkpoint.as_bytes().to_vec() })
    }

    /// Checks that `entry` is in a log that `trust` accepts. Size and root come from the verified checkpoint
    /// alone.
    ///
    /// # Errors
    /// If the signatures or the inclusion proof do not hold. Look at [`Trusted::witnessed`] too.
    pub fn verify(&self, entry: &[u8], trust: &TrustPolicy) -> Result<Trusted, Error> {
        let trusted = trust.check(&self.checkpoint)?;
        let head = trusted.checkpoint.head;
        verify_inclusion(&self.path, Hash::of_leaf(entry), self.index, head.size, head.root)?;
        Ok(trusted)
    }
}

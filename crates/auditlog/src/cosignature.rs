//! Witness cosignatures (C2SP tlog-cosignature, Ed25519, type `0x04`): parse and verify.
//!
//! A cosignature says: as of this time, the largest consistent tree that I saw of this log has this root.

use crate::{
    Error,
    note::{KeyKind, Note, VerifierKey},
};

/// The time at which `witness` cosigned the checkpoint, in seconds since 1970.
///
/// # Errors
/// [`Error::SignatureMissing`] if it did not; [`Error::SignatureInvalid`] if a line that claims to be its is
/// wrong, or `witness` is no cosignature key.
pub fn verify(checkpoint: &Note, witness: &VerifierKey) -> Result<u64, Error> {
    let invalid = || Error::SignatureInvalid { name: witness.name().to_owned() };
    let mut newest = None;
    for line in checkpoint.signatures().iter().filter(|s| witness.is_of(s)) {
        let (time, signature) = line.bytes.split_first_chunk::<8>().ok_or_else(invalid)?;
        let time = u64::from_be_bytes(*time);
        let message = message(checkpoint.text(), time);
        // The timestamp must not exceed 2^63 - 1.
        let plausible = witness.kind() == KeyKind::Cosignature && i64::try_from(time).is_ok();
        if !plausible || !witness.verifies(message.as_bytes(), signature) {
            return Err(invalid());
        }
        newest = newest.max(Some(time));
    }
    newest.ok_or(Error::SignatureMissing)
}

/// What a witness signs: two header lines, then the whole note text.
#[must_use]
pub fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::note::Signature;

    const TEXT: &str = "example.com/log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn cosigned(time: u64, text: &str) -> (Note, VerifierKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::new("witness.example/w1", KeyKind::Cosignature, public).unwrap();
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(pair.sign(message(text, time).as_bytes()).as_ref());
        let mut note = Note::new(TEXT.to_owned()).unwrap();
        note.attach(Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes });
        (note, key)
    }

    #[test]
    fn a_cosignature_yields_its_time() {
        let (note, key) = cosigned(1_679_315_147, TEXT);
        assert_eq!(verify(&note, &key).unwrap(), 1_679_315_147);
        let again = Note::parse(&note.encode()).unwrap();
        assert_eq!(verify(&again, &key).unwrap(), 1_679_315_147);
    }

    #[test]
    fn a_cosignature_over_another_text_time_or_key_is_refused() {
        let (note, key) = cosigned(5, "example.com/log\n2\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n");
        assert!(matches!(verify(&note, &key), Err(Error::SignatureInvalid { .. })));
        let (note, key) = cosigned(u64::MAX, TEXT);
        assert!(matches!(verify(&note, &key), Err(Error::SignatureInvalid { .. })));
        let (mut note, key) = cosigned(5, TEXT);
        let mut line = note.signatures().first().unwrap().clone();
        *line.bytes.get_mut(7).unwrap() ^= 1;
        note.attach(line);
        assert!(matches!(verify(&note, &key), Err(Error::SignatureInvalid { .. })));
        let stranger = VerifierKey::new("witness.example/w2", KeyKind::Cosignature, [3; 32]).unwrap();
        assert!(matches!(verify(&note, &stranger), Err(Error::SignatureMissing)));
    }
}

//! Hostile bytes for every parser of this crate: nothing panics, what is read is written back byte for byte, and nothing that
//! was altered verifies. A bounded fuzzer that needs no instrumentation: soup of the formats' own pieces, and valid texts
//! with pieces cut out, repeated and exchanged.

use auditlog::{
    checkpoint::{Checkpoint, Head, sign_empty},
    hash::Hash,
    note::{Note, Signature, VerifierKey},
    receipt::Receipt,
    tile::{Entries, Resource, pack_entry},
    trust::TrustPolicy,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::rig::{entry, key, note_of, published, signer};

/// One change of a text: at about this place, so many bytes are replaced.
type Edit = (u16, u8, Vec<u8>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let pieces = [
        "\n",
        "\n\n",
        "\u{2014} ",
        "\u{2014}",
        " ",
        "0",
        "00",
        "+",
        "-",
        "=",
        "/",
        "A",
        "\r",
        "\0",
        "\u{feff}",
        "\u{e9}",
        "18446744073709551616",
    ];
    let piece = prop_oneof![
        select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 0..4),
        Just(Vec::new()),
    ];
    vec((any::<u16>(), 0_u8..8, piece), 1..4)
}

fn edited(text: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for (at, cut, put) in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        let end = (at + usize::from(*cut)).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
    bytes
}

fn note() -> Vec<u8> {
    sign_empty(&signer()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_altered_checkpoint_is_believed_and_what_is_read_is_written_back(edits in edits()) {
        let (honest, altered) = (Note::parse(&note()).unwrap(), edited(&note(), &edits));
        if let Ok(read) = Note::parse(&altered) {
            prop_assert_eq!(read.encode(), altered.clone());
            // Whatever its signatures are worth, its text is that of the signature or it does not verify.
            if read.verify(&key()).is_ok() {
                prop_assert_eq!(read.text(), honest.text());
            }
        }
        if let Ok(opened) = Checkpoint::open(&altered, &key()) {
            prop_assert_eq!(opened.head, Head::empty());
        }
        let _ = TrustPolicy::of_log(key()).check(&altered);
    }

    #[test]
    fn a_body_that_is_read_as_a_checkpoint_says_so_in_one_spelling(edits in edits()) {
        let body = Checkpoint { origin: "writ.example/log".into(), head: Head { size: 1_234, root: Hash::of_leaf(b"x") } };
        let altered = edited(body.text().as_bytes(), &edits);
        if let Some(read) = std::str::from_utf8(&altered).ok().and_then(|text| Checkpoint::parse(text).ok()) {
            // Extension lines are allowed and not part of what was read.
            prop_assert!(altered.starts_with(read.text().as_bytes()), "{:?}", String::from_utf8_lossy(&altered));
        }
    }

    #[test]
    fn keys_and_signature_lines_have_one_spelling(edits in edits()) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        if let Some(line) = text(edited(key().to_string().as_bytes(), &edits))
            && let Ok(read) = VerifierKey::parse(&line)
        {
            prop_assert_eq!(read.to_string(), line);
        }
        // A line is written with its end and read without.
        let honest = Note::parse(&note()).unwrap().signatures()[0].to_string();
        if let Some(line) = text(edited(honest.trim_end().as_bytes(), &edits))
            && let Ok(read) = Signature::parse(&line)
        {
            prop_assert_eq!(read.to_string(), format!("{line}\n"));
        }
    }

    #[test]
    fn a_bundle_gives_back_its_entries_or_an_error_and_ends(edits in edits(), count in 0_usize..6) {
        let mut bundle = Vec::new();
        for i in 0..count {
            pack_entry(&mut bundle, &entry(i as u64)).unwrap();
        }
        for bytes in [bundle.clone(), edited(&bundle, &edits)] {
            let mut again = Vec::new();
            let read: Result<Vec<_>, _> = Entries::new(&bytes).take(bytes.len() + 1).collect();
            if let Ok(entries) = read {
                entries.iter().for_each(|entry| pack_entry(&mut again, entry).unwrap());
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_path_that_names_a_resource_is_the_one_spelling_of_it(edits in edits(), n in any::<u32>(), width in 1_u16..=256) {
        let n = u64::from(n);
        for resource in [Resource::Bundle { n, width }, Resource::Bundle { n: 0, width: 256 }] {
            prop_assert_eq!(Resource::parse(&resource.path()).unwrap(), resource);
            if let Ok(path) = String::from_utf8(edited(resource.path().as_bytes(), &edits))
                && let Ok(read) = Resource::parse(&path)
            {
                prop_assert_eq!(read.path(), path.clone());
                prop_assert!(!path.contains(".."), "{path}");
            }
        }
    }

    #[test]
    fn bytes_that_are_anything_panic_nowhere(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Note::parse(&bytes);
        let _ = Receipt::parse(&bytes);
        let _ = TrustPolicy::parse(&bytes);
        let _ = Entries::new(&bytes).take(301).count();
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = (Checkpoint::parse(text).is_ok(), Signature::parse(text).is_ok(), Resource::parse(text).is_ok());
        }
    }
}

#[test]
fn no_altered_receipt_proves_another_entry() {
    let world = published(40);
    let directory = world.directory();
    let tiles = auditlog::reader::Tiles::new(directory.clone());
    let path = auditlog::proof::prove_inclusion(&auditlog::reader::Published::new(&tiles, 40), 17, 40).unwrap();
    let receipt = Receipt { extra: None, index: 17, path, checkpoint: note_of(&directory) }.encode();
    let trust = TrustPolicy::of_log(key());
    Receipt::parse(&receipt).unwrap().verify(&entry(17), &trust).unwrap();
    proptest!(ProptestConfig::with_cases(2_000), |(edits in edits())| {
        if let Ok(read) = Receipt::parse(&edited(&receipt, &edits)) {
            prop_assert!(read.verify(&entry(18), &trust).is_err());
            if read.verify(&entry(17), &trust).is_ok() {
                prop_assert_eq!(read.index, 17);
            }
        }
    });
}

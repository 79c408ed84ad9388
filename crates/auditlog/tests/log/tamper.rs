//! Attacks on a log directory, on proofs and on trust: each must be found, and named where it is.
//! The attacker holds the files; never the key, except where a test says so.

use auditlog::{
    Error,
    checkpoint::Checkpoint,
    cosignature,
    hash::Hash,
    note::{Ed25519Signer, KeyKind, Note, Signature, VerifierKey},
    port::NoteSigner,
    proof::prove_inclusion,
    reader::{Published, Tiles},
    receipt::Receipt,
    tile::pack_entry,
    trust::TrustPolicy,
    verify::{Finding, Flaw, Options, Verdict, verify},
};
use zeroize::Zeroizing;

use crate::rig::{World, entry, key, note_of, published, signer, verify_with};

const SIZE: u64 = 600;

fn finding(world: &World, older: Option<&[u8]>) -> Finding {
    match verify_with(&world.directory(), older, &mut |_, _| {}) {
        Verdict::Invalid(finding) => finding,
        other => panic!("accepted: {other:?}"),
    }
}

/// Changes one file of a good log and says what the verifier finds.
fn after(path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Finding {
    let world = published(SIZE);
    let file = world.directory().root().join(path);
    let mut bytes = std::fs::read(&file).unwrap();
    change(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    finding(&world, None)
}

#[test]
fn an_untouched_log_is_valid_and_its_entries_are_given_in_order() {
    let world = published(SIZE);
    let (report, entries) = world.verify(None);
    assert_eq!(report.head.size, SIZE);
    assert_eq!(entries, (0..SIZE).map(entry).collect::<Vec<_>>());
}

#[test]
fn a_changed_entry_is_named_by_its_index() {
    let mut offset = 0;
    for i in 0..100 {
        offset += 2 + entry(256 + i).len();
    }
    let found = after("tile/entries/001", |bytes| bytes[offset + 3] ^= 1);
    assert_eq!((found.index, found.file.as_str()), (Some(356), "tile/entries/001"));
    assert!(matches!(found.why, Flaw::EntryDiffers { .. }), "{found:?}");
}

#[test]
fn every_flipped_byte_of_a_tile_is_found() {
    for (path, level) in [("tile/0/000", 0), ("tile/0/002.p/88", 0), ("tile/1/000.p/2", 1)] {
        for position in [0, 31, 32, 63] {
            let found = after(path, |bytes| bytes[position] ^= 0x80);
            match found.why {
                Flaw::EntryDiffers { tile } if level == 0 => assert_eq!(tile, path),
                Flaw::TileDiffers if level == 1 => assert_eq!(found.file, path),
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}

#[test]
fn cut_lengthened_and_reordered_bundles_are_found() {
    let cut = after("tile/entries/000", |bytes| bytes.truncate(bytes.len() - 1));
    assert!(matches!(cut.why, Flaw::Unsound(Error::BundleMalformed { .. })), "{cut:?}");
    let fewer = after("tile/entries/002.p/88", |bytes| bytes.truncate(0));
    assert!(matches!(fewer.why, Flaw::EntryCount), "{fewer:?}");
    let more = after("tile/entries/000", |bytes| pack_entry(bytes, b"one more").unwrap());
    assert!(matches!(more.why, Flaw::EntryCount), "{more:?}");
    let swapped = after("tile/entries/000", |bytes| {
        let first = 2 + entry(0).len();
        let second = 2 + entry(1).len();
        bytes[..first + second].rotate_left(first);
    });
    assert!(matches!((swapped.index, swapped.why), (Some(0), Flaw::EntryDiffers { .. })));
}

#[test]
fn missing_files_are_named() {
    for path in ["tile/entries/001", "tile/0/001", "tile/1/000.p/2", "tile/0/002.p/88", "checkpoint"] {
        let world = published(SIZE);
        std::fs::remove_file(world.directory().root().join(path)).unwrap();
        let found = finding(&world, None);
        assert!(matches!(found.why, Flaw::Missing), "{found:?}");
        assert_eq!(found.file, path);
    }
}

#[test]
fn a_changed_checkpoint_is_found() {
    let changed = after("checkpoint", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replacen("\n600\n", "\n599\n", 1).into_bytes();
    });
    assert!(matches!(changed.why, Flaw::Unsound(Error::SignatureInvalid { .. })), "{changed:?}");
    let unsigned = after("checkpoint", |bytes| {
        let note = Note::parse(bytes).unwrap();
        let mut other = Note::new(note.text().to_owned()).unwrap();
        other.sign(&Ed25519Signer::from_seed("writ.example/log", &Zeroizing::new([9; 32])).unwrap()).unwrap();
        *bytes = other.encode();
    });
    assert!(matches!(unsigned.why, Flaw::Unsound(Error::SignatureMissing)), "{unsigned:?}");
}

#[test]
fn a_whole_forged_tree_does_not_pass_under_the_signed_root() {
    // Everything is consistent in itself but for the checkpoint, which the forger cannot sign.
    let honest = published(SIZE);
    let mut forged = World::new();
    let mut run = forged.start().unwrap();
    let entries: Vec<_> = (0..SIZE).map(|i| if i == 17 { b"forged".to_vec() } else { entry(i) }).collect();
    forged.append(&mut run, &entries).unwrap();
    forged.publish(&mut run).unwrap();
    let checkpoint = note_of(&honest.directory());
    std::fs::write(forged.directory().root().join("checkpoint"), checkpoint).unwrap();
    assert!(matches!(finding(&forged, None).why, Flaw::RootDiffers { .. }));
}

#[test]
fn a_log_that_was_rewritten_or_cut_by_its_own_key_is_found_with_an_older_checkpoint() {
    let old = note_of(&published(300).directory());
    published(SIZE).verify(Some(&old));

    let mut rewritten = World::new();
    let mut run = rewritten.start().unwrap();
    let entries: Vec<_> = (0..SIZE).map(|i| entry(i + 1)).collect();
    rewritten.append(&mut run, &entries).unwrap();
    rewritten.publish(&mut run).unwrap();
    assert!(matches!(finding(&rewritten, Some(&old)).why, Flaw::Rewritten { old: 300 }));
    assert!(matches!(finding(&published(299), Some(&old)).why, Flaw::Shrunk { size: 299, old: 300 }));
}

fn witness(seed: u8) -> (Ed25519Signer, VerifierKey) {
    let name = format!("witness.example/w{seed}");
    let pair = Ed25519Signer::from_seed(&name, &Zeroizing::new([seed; 32])).unwrap();
    let key = VerifierKey::new(&name, KeyKind::Cosignature, *pair.verifier().public()).unwrap();
    (pair, key)
}

fn cosign(note: &mut Note, seed: u8, time: u64) {
    let (pair, key) = witness(seed);
    let mut bytes = time.to_be_bytes().to_vec();
    bytes.extend(pair.sign(cosignature::message(note.text(), time).as_bytes()).unwrap());
    note.attach(Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes });
}

fn policy_of_two_of_three() -> TrustPolicy {
    let keys: Vec<_> = (1..=3).map(|seed| witness(seed).1).collect();
    let text = format!(
        "# comment\nlog {}\nwitness A {} https://a.example\nwitness B {}\n\twitness  C {}\ngroup G 2 A B C\nquorum G\n",
        key(),
        keys[0],
        keys[1],
        keys[2]
    );
    TrustPolicy::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_quorum_of_witnesses_is_counted_once_each() {
    let world = published(20);
    let verdict = |cosigners: &[u8]| {
        let mut note = Note::parse(&note_of(&published(20).directory())).unwrap();
        cosigners.iter().for_each(|seed| cosign(&mut note, *seed, 1000 + u64::from(*seed)));
        std::fs::write(world.directory().root().join("checkpoint"), note.encode()).unwrap();
        let options = Options { older: None, entry: &mut |_, _| {}, progress: &mut |_, _| {} };
        verify(&world.directory(), &policy_of_two_of_three(), options).unwrap()
    };
    assert!(matches!(verdict(&[]), Verdict::Unwitnessed(_)));
    assert!(matches!(verdict(&[1, 1]), Verdict::Unwitnessed(_)));
    assert!(matches!(verdict(&[1, 9]), Verdict::Unwitnessed(_)));
    match verdict(&[1, 3]) {
        Verdict::Valid(report) => {
            assert_eq!(report.cosignatures, [("A".to_owned(), 1001), ("C".to_owned(), 1003)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn trust_policies_that_could_be_misread_are_refused() {
    let (log, a, b) = (key(), witness(1).1, witness(2).1);
    for (text, line) in [
        (format!("log {log}\n"), 2),
        (format!("log {log}\nquorum A\n"), 2),
        (format!("log {log}\nquorum none\nquorum none\n"), 3),
        (format!("log {log}\nlog {log}\nquorum none\n"), 2),
        (format!("log {a}\nquorum none\n"), 1),
        (format!("witness A {log}\nquorum A\n"), 1),
        (format!("witness none {a}\nquorum none\n"), 1),
        (format!("witness A {a}\nwitness B {a}\nquorum A\n"), 2),
        (format!("witness A {a}\nwitness A {b}\nquorum A\n"), 2),
        (format!("witness A {a}\ngroup G 2 A\nquorum G\n"), 2),
        (format!("witness A {a}\ngroup G 0 A\nquorum G\n"), 2),
        (format!("witness A {a}\ngroup G 01 A\nquorum G\n"), 2),
        (format!("witness A {a}\ngroup G any A A\nquorum G\n"), 2),
        (format!("witness A {a}\ngroup G any A\ngroup H any A\nquorum G\n"), 3),
        (format!("group G any G\nwitness A {a}\nquorum G\n"), 1),
        (format!("witness A {a}\ngroup G any\nquorum G\n"), 2),
        ("quorum none extra\n".to_owned(), 1),
        ("threshold 2\nquorum none\n".to_owned(), 1),
        ("quorum none\r\n".to_owned(), 1),
    ] {
        match TrustPolicy::parse(text.as_bytes()) {
            Err(Error::PolicyMalformed { line: found, .. }) => assert_eq!(found, line, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_key_of_one_log_does_not_vouch_for_another() {
    // A trusted key signs a note that names another log; the policy lists only its own name.
    let body = Checkpoint::parse(Note::parse(&note_of(&published(5).directory())).unwrap().text()).unwrap();
    let mut note = Note::new(Checkpoint { origin: "other.example/log".to_owned(), ..body }.text()).unwrap();
    note.sign(&signer()).unwrap();
    assert!(matches!(TrustPolicy::of_log(key()).check(&note.encode()), Err(Error::SignatureMissing)));
}

#[test]
fn receipts_verify_and_altered_ones_do_not() {
    let world = published(SIZE);
    let tiles = Tiles::new(world.directory());
    let path = prove_inclusion(&Published::new(&tiles, SIZE), 371, SIZE).unwrap();
    let receipt = Receipt { extra: Some(b"context".to_vec()), index: 371, path, checkpoint: note_of(&world.directory()) };
    let trust = TrustPolicy::of_log(key());
    let again = Receipt::parse(&receipt.encode()).unwrap();
    assert_eq!(again, receipt);
    assert!(again.verify(&entry(371), &trust).unwrap().witnessed);
    assert!(again.verify(&entry(372), &trust).is_err());

    let altered = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = receipt.clone();
        change(&mut receipt);
        receipt.verify(&entry(371), &trust).is_err()
    };
    assert!(altered(&|r| r.index = 370));
    assert!(altered(&|r| r.index = SIZE));
    assert!(altered(&|r| r.path.swap(0, 1)));
    assert!(altered(&|r| {
        r.path.pop();
    }));
    assert!(altered(&|r| r.path.push(Hash::of_empty_tree())));
    assert!(altered(&|r| r.checkpoint = note_of(&published(400).directory())));

    let text = String::from_utf8(receipt.encode()).unwrap();
    for bad in [
        text.replace("@v1", "@v2"),
        text.replace("index 371", "index 0371"),
        text.replace("index 371\n", ""),
        text.replace("extra ", "extra  "),
        text.replace("\n\n", "\n"),
        text.replacen("\n\n", "\nAAAA\n\n", 1),
    ] {
        assert!(Receipt::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn malformed_notes_and_keys_are_refused() {
    let note = String::from_utf8(note_of(&published(3).directory())).unwrap();
    Note::parse(note.as_bytes()).unwrap();
    for bad in [
        note.trim_end().to_owned(),
        note.replace("\n\n", "\n"),
        note.replace('—', "-"),
        note.replacen("— ", "—  ", 1),
        note.replacen("writ.example/log ", "writ.example/l+og ", 1).replacen("— writ.example/log", "— writ+x", 1),
        format!("{note}\n"),
        note.replacen('\n', "\r\n", 1),
        format!("{note}{}", "— a AAAAAAA=\n".repeat(70)),
        "x".repeat(200_000),
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let vkey = key().to_string();
    assert_eq!(VerifierKey::parse(&vkey).unwrap(), key());
    assert!(VerifierKey::parse(&vkey.replacen("log+", "log2+", 1)).is_err());
    assert!(VerifierKey::parse(&vkey.to_uppercase()).is_err());
    assert!(VerifierKey::parse("a+b").is_err());
}

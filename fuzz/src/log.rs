//! What somebody else may have written of a log: notes, checkpoints, receipts, tiles, proofs.

use auditlog::checkpoint::Checkpoint;
use auditlog::cosignature;
use auditlog::hash::Hash;
use auditlog::note::{Ed25519Signer, Note, SIGNATURES_MAX, Signature, VerifierKey};
use auditlog::port::NoteSigner as _;
use auditlog::proof::{verify_consistency, verify_inclusion};
use auditlog::receipt::Receipt;
use auditlog::tile::{Entries, Resource, pack_entry};
use auditlog::trust::TrustPolicy;
use std::sync::LazyLock;
use zeroize::Zeroizing;

static SIGNER: LazyLock<Ed25519Signer> =
    LazyLock::new(|| Ed25519Signer::from_seed("log.example", &Zeroizing::new([7; 32])).expect("a key"));

/// A note has one spelling; nothing that nobody signed is believed, and what is signed is believed only as it was signed.
pub fn note(data: &[u8]) {
    let key = SIGNER.verifier();
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.encode(), data, "a note has two spellings");
        assert!(note.signatures().len() <= SIGNATURES_MAX);
        assert!(note.verify(key).is_err() && cosignature::verify(&note, key).is_err(), "what nobody signed is believed");
        for signature in note.signatures() {
            let line = signature.to_string();
            assert_eq!(Signature::parse(line.trim_end_matches('\n')).as_ref().ok(), Some(signature));
        }
    }
    assert!(Checkpoint::open(data, key).is_err(), "a checkpoint that nobody signed is accepted");
    assert!(TrustPolicy::of_log(key.clone()).check(data).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        checkpoint(text);
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(key.to_string(), text, "a key has two spellings");
        }
    }
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(receipt.encode(), data, "a receipt has two spellings");
        assert!(receipt.verify(b"entry", &TrustPolicy::of_log(key.clone())).is_err());
    }
    if let Ok(policy) = TrustPolicy::parse(data) {
        assert!(policy.check(data).is_err());
    }
}

fn checkpoint(text: &str) {
    let parsed = Checkpoint::parse(text);
    if let Ok(parsed) = &parsed {
        let again = Checkpoint::parse(&parsed.text()).expect("what was read can be written");
        assert_eq!(&again, parsed);
        assert!(text.starts_with(&parsed.text()), "a checkpoint has two spellings");
    }
    let Ok(mut note) = Note::new(text.to_owned()) else { return };
    note.sign(&*SIGNER).expect("signed");
    let encoded = note.encode();
    let again = Note::parse(&encoded).expect("what was signed can be read");
    assert_eq!(again.text(), text, "the signed text is read as another");
    assert!(again.verify(SIGNER.verifier()).is_ok());
    match (Checkpoint::open(&encoded, SIGNER.verifier()), parsed) {
        (Ok(opened), Ok(parsed)) => assert!(opened == parsed && opened.origin == "log.example"),
        (Ok(_), Err(_)) => panic!("an opened checkpoint does not parse"),
        (Err(_), Ok(parsed)) => assert_ne!(parsed.origin, "log.example"),
        (Err(_), Err(_)) => {}
    }
}

/// A path has one spelling, and entries account for every byte of their bundle.
pub fn tile(data: &[u8]) {
    if let Ok(path) = std::str::from_utf8(data)
        && let Ok(resource) = Resource::parse(path)
    {
        assert_eq!(resource.path(), path, "a path has two spellings");
        assert!((1..=256).contains(&resource.width()) && !path.contains(".."));
        assert_eq!(Resource::parse(&resource.full().path()).ok(), Some(resource.full()));
    }
    let mut packed = Vec::new();
    for entry in Entries::new(data) {
        match entry {
            Ok(entry) => pack_entry(&mut packed, entry).expect("what was packed can be packed"),
            Err(_) => return assert!(packed.len() < data.len()),
        }
    }
    assert_eq!(packed, data, "a bundle has two spellings");
    if let Ok(hashes) = auditlog::hash::split_hashes(data) {
        assert_eq!(auditlog::hash::join_hashes(&hashes), data);
    }
}

/// A tree of few leaves, by the definition of RFC 6962 §2.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_empty_tree(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
            Hash::of_node(&root(left), &root(right))
        }
    }
}

/// The way of a leaf in such a tree, the sibling first.
fn way(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let middle = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(middle);
    let (mut way, other) = if index < middle { (way(left, index), right) } else { (way(right, index - middle), left) };
    way.push(root(other));
    way
}

/// A proof shows the leaf that it is of, where it is, in its tree, and nothing else; a path of anybody's making shows nothing.
pub fn tree(data: &[u8]) {
    let [size, index, old, change, rest @ ..] = data else { return };
    let size = usize::from(*size) % 48 + 1;
    let index = usize::from(*index) % size;
    let old = usize::from(*old) % (size + 1);
    let leaves: Vec<Hash> =
        (0..size).map(|at| Hash::of_leaf(&[rest.get(at).copied().unwrap_or(0), u8::try_from(at).unwrap_or(0)])).collect();
    let (whole, part) = (root(&leaves), root(&leaves[..old]));
    let proof = way(&leaves, index);
    let holds = |proof: &[Hash], leaf, index: usize, size: usize, root| {
        verify_inclusion(proof, leaf, index as u64, size as u64, root).is_ok()
    };
    assert!(holds(&proof, leaves[index], index, size, whole));
    // A hash that stands nowhere in the tree.
    let alien = Hash::of_leaf(b"alien");
    let at = usize::from(*change);
    assert!(!holds(&proof, alien, index, size, whole), "another leaf");
    assert!(!holds(&proof, leaves[index], index, size, alien), "another root");
    assert!(
        size == 1 || !holds(&proof, leaves[index], (index + 1 + at % (size - 1).max(1)) % size, size, whole),
        "another place"
    );
    let mut longer = proof.clone();
    longer.insert(at % (proof.len() + 1), alien);
    assert!(!holds(&longer, leaves[index], index, size, whole), "a longer path");
    if !proof.is_empty() {
        let mut other = proof.clone();
        other[at % proof.len()] = alien;
        assert!(!holds(&other, leaves[index], index, size, whole), "another path");
        other.remove(at % proof.len());
        assert!(!holds(&other, leaves[index], index, size, whole), "a shorter path");
    }
    // A node is no leaf: the way above it does not show it as one.
    if size > 1 {
        let node = Hash::of_node(&leaves[0], &leaves[1]);
        assert!(!holds(&proof[1..], node, index, size, whole) || proof.len() < 2, "a node is shown as a leaf");
    }
    consistency(&leaves, (old, part), whole, rest, alien);
}

fn consistency(leaves: &[Hash], (old, part): (usize, Hash), whole: Hash, rest: &[u8], alien: Hash) {
    let size = leaves.len() as u64;
    // A path of hashes of the tree, chosen by the input: whatever is shown by it is true.
    let chosen: Vec<Hash> = rest
        .iter()
        .take(10)
        .map(|byte| match byte {
            0..=99 => leaves[usize::from(*byte) % leaves.len()],
            _ => {
                let from = usize::from(*byte) * 7 % leaves.len();
                let to = from + 1 + usize::from(*byte) % (leaves.len() - from);
                root(&leaves[from..to])
            }
        })
        .collect();
    for root in [part, alien] {
        if verify_consistency(&chosen, (old as u64, root), (size, whole)).is_ok() {
            assert_eq!(root, part, "another history is consistent");
        }
    }
    assert!(verify_consistency(&chosen, (old as u64, part), (size, alien)).is_err() || (old == 0 && chosen.is_empty()));
    assert!(old == leaves.len() || verify_consistency(&chosen, (size, whole), (old as u64, part)).is_err());
}

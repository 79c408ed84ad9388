//! What must hold for every tree, and agreement with implementations that we did not write.
//! Touches files only to show that they say the same as memory.

use auditlog::{
    Error,
    hash::Hash,
    port::HashReader,
    proof::{prove_consistency, prove_inclusion, root_at, verify_consistency, verify_inclusion},
    reader::{Published, Tiles},
    sequence::{integrate, pack},
    tree::{Frontier, Node, Tail},
};
use proptest::prelude::*;

use crate::rig::{entry, key, note_of, published};

struct Whole(Tail);

impl HashReader for Whole {
    fn hash(&self, node: Node) -> Result<Hash, Error> {
        self.0.node(node).ok_or(Error::NodeMissing { level: node.level, index: node.index })
    }
}

fn tree(n: u64) -> Whole {
    let mut tail = Tail::new(Frontier::empty());
    if n > 0 {
        let entries: Vec<_> = (0..n).map(entry).collect();
        let packed = pack(entries.iter().map(Vec::as_slice)).unwrap();
        tail.extend(&integrate(&Frontier::empty(), &packed).unwrap().nodes);
    }
    Whole(tail)
}

fn flip(hash: Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash::from_bytes(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_inclusion_proof_verifies_and_an_altered_one_does_not(
        size in 1_u64..700, seed in any::<u64>(), at in any::<usize>(), bit in 0_usize..256,
    ) {
        let whole = tree(size);
        let index = seed % size;
        let (leaf, root) = (Hash::of_leaf(&entry(index)), root_at(&whole, size).unwrap());
        let path = prove_inclusion(&whole, index, size).unwrap();
        verify_inclusion(&path, leaf, index, size, root).unwrap();
        prop_assert!(verify_inclusion(&path, flip(leaf, bit), index, size, root).is_err());
        prop_assert!(verify_inclusion(&path, leaf, index, size, flip(root, bit)).is_err());
        prop_assert!(verify_inclusion(&path, leaf, index ^ 1, size, root).is_err());
        let mut longer = path.clone();
        longer.push(root);
        prop_assert!(verify_inclusion(&longer, leaf, index, size, root).is_err());
        if !path.is_empty() {
            let mut altered = path.clone();
            let at = at % path.len();
            altered[at] = flip(altered[at], bit);
            prop_assert!(verify_inclusion(&altered, leaf, index, size, root).is_err());
            prop_assert!(verify_inclusion(&path[1..], leaf, index, size, root).is_err());
        }
    }

    #[test]
    fn a_consistency_proof_verifies_and_an_altered_one_does_not(
        new in 1_u64..700, seed in any::<u64>(), at in any::<usize>(), bit in 0_usize..256,
    ) {
        let whole = tree(new);
        let old = seed % (new + 1);
        let (before, after) = (root_at(&whole, old).unwrap(), root_at(&whole, new).unwrap());
        let path = prove_consistency(&whole, old, new).unwrap();
        verify_consistency(&path, (old, before), (new, after)).unwrap();
        prop_assert!(verify_consistency(&path, (old, flip(before, bit)), (new, after)).is_err());
        if old > 0 {
            prop_assert!(verify_consistency(&path, (old, before), (new, flip(after, bit))).is_err());
        }
        prop_assert!(verify_consistency(&path, (new + 1, before), (new, after)).is_err());
        let mut longer = path.clone();
        longer.push(after);
        prop_assert!(verify_consistency(&longer, (old, before), (new, after)).is_err());
        if !path.is_empty() {
            let mut altered = path.clone();
            let at = at % path.len();
            altered[at] = flip(altered[at], bit);
            prop_assert!(verify_consistency(&altered, (old, before), (new, after)).is_err());
        }
    }

    #[test]
    fn batches_of_any_size_give_the_same_tree(sizes in prop::collection::vec(1_u64..60, 1..12)) {
        let mut frontier = Frontier::empty();
        let mut next = 0;
        for count in sizes {
            let entries: Vec<_> = (next..next + count).map(entry).collect();
            let packed = pack(entries.iter().map(Vec::as_slice)).unwrap();
            let appended = integrate(&frontier, &packed).unwrap();
            prop_assert_eq!(appended.first, next);
            next += count;
            prop_assert_eq!(appended.head.root, root_at(&tree(next), next).unwrap());
            frontier = Frontier::decode(next, &appended.to_stored(packed).frontier).unwrap();
        }
    }

    #[test]
    fn parsers_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = auditlog::note::Note::parse(&bytes);
        let _ = auditlog::receipt::Receipt::parse(&bytes);
        let _ = auditlog::trust::TrustPolicy::parse(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = auditlog::checkpoint::Checkpoint::parse(&text);
        let _ = auditlog::note::VerifierKey::parse(&text);
        let _ = auditlog::tile::Resource::parse(&text);
        auditlog::tile::Entries::new(&bytes).for_each(drop);
    }
}

/// Hashes in the order in which `tlog_tiles` numbers them.
struct Numbered<'a>(&'a Whole);

impl tlog_tiles::HashReader for Numbered<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let read = |index: &u64| {
            let (level, index) = tlog_tiles::split_stored_hash_index(*index);
            tlog_tiles::Hash(*self.0.hash(Node { level, index }).unwrap().as_bytes())
        };
        Ok(indexes.iter().map(read).collect())
    }
}

fn foreign(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(|hash| tlog_tiles::Hash(*hash.as_bytes())).collect()
}

#[test]
fn proofs_are_those_of_tlog_tiles_byte_for_byte() {
    for size in [1, 2, 3, 7, 8, 255, 256, 257, 600] {
        let whole = tree(size);
        let root = foreign(&[root_at(&whole, size).unwrap()])[0];
        assert_eq!(tlog_tiles::tree_hash(size, &Numbered(&whole)).unwrap(), root);
        for index in (0..size).step_by(7).chain([size - 1]) {
            let ours = foreign(&prove_inclusion(&whole, index, size).unwrap());
            assert_eq!(ours, tlog_tiles::prove_record(size, index, &Numbered(&whole)).unwrap());
            let leaf = tlog_tiles::record_hash(&entry(index));
            tlog_tiles::check_record(&ours, size, root, index, leaf).unwrap();
        }
        for old in (1..=size).step_by(5) {
            let ours = foreign(&prove_consistency(&whole, old, size).unwrap());
            assert_eq!(ours, tlog_tiles::prove_tree(size, old, &Numbered(&whole)).unwrap(), "{old} in {size}");
            let before = foreign(&[root_at(&whole, old).unwrap()])[0];
            tlog_tiles::check_tree(&ours, size, root, old, before).unwrap();
        }
    }
}

#[test]
fn roots_and_proofs_are_those_of_ct_merkle() {
    let mut theirs = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for i in 0..300 {
        theirs.push(entry(i));
        let size = i + 1;
        let whole = tree(size);
        assert_eq!(theirs.root().as_bytes().as_slice(), root_at(&whole, size).unwrap().as_bytes());
        let path: Vec<u8> = prove_inclusion(&whole, i / 2, size).unwrap().iter().flat_map(|h| *h.as_bytes()).collect();
        assert_eq!(theirs.prove_inclusion(usize::try_from(i / 2).unwrap()).as_bytes(), path);
    }
}

#[test]
fn our_checkpoint_is_accepted_by_signed_note_and_tlog_tiles() {
    let world = published(300);
    let bytes = note_of(&world.directory());
    let note = signed_note::Note::from_bytes(&bytes).unwrap();
    let verifier = signed_note::StandardVerifier::new(&key().to_string()).unwrap();
    let (good, unknown) = note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((good.len(), unknown.len()), (1, 0));
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!((checkpoint.size(), checkpoint.origin()), (300, "writ.example/log"));
    assert_eq!(checkpoint.hash(), &foreign(&[root_at(&tree(300), 300).unwrap()])[0]);
}

#[test]
fn tile_files_give_the_same_hashes_as_memory() {
    let world = published(70_000 / 100);
    let size = 700;
    let tiles = Tiles::new(world.directory());
    let (files, memory) = (Published::new(&tiles, size), tree(size));
    for index in 0..size {
        let from_files = prove_inclusion(&files, index, size).unwrap();
        assert_eq!(from_files, prove_inclusion(&memory, index, size).unwrap());
    }
    for old in 1..size {
        assert_eq!(prove_consistency(&files, old, size).unwrap(), prove_consistency(&memory, old, size).unwrap());
    }
}

//! Rates of the log on one core: integrate, prove, verify a directory. Prints a table.
//! Knows no database and no concurrency: those rates are the store's bench.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::time::Instant;

use auditlog::{
    checkpoint::{Checkpoint, Head},
    directory::Directory,
    edge::Edge,
    hash::Hash,
    note::{Ed25519Signer, Note},
    port::{LogFiles, NoteSigner},
    proof::{prove_consistency, prove_inclusion},
    reader::{Published, Tiles},
    sequence::{integrate, pack},
    tree::Frontier,
    trust::TrustPolicy,
    verify::{Options, Verdict, verify},
};

const ENTRIES: u64 = 200_000;
const ENTRY_LEN: usize = 600;

fn rate(what: &str, count: u64, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<40} {:>12.0}/s", count as f64 / seconds);
}

fn entry(i: u64) -> Vec<u8> {
    let mut entry = vec![b'x'; ENTRY_LEN];
    entry.splice(..8, i.to_be_bytes());
    entry
}

fn main() {
    let scratch = tempfile::TempDir::new().unwrap();
    let files = Directory::new(scratch.path());
    let signer = Ed25519Signer::from_seed("bench.example/log", &zeroize::Zeroizing::new([1; 32])).unwrap();

    let batches: Vec<_> = (0..ENTRIES / 64)
        .map(|b| pack((0..64).map(|i| entry(b * 64 + i)).collect::<Vec<_>>().iter().map(Vec::as_slice)).unwrap())
        .collect();
    rate("integrate, batches of 64", ENTRIES, || {
        let mut frontier = Frontier::empty();
        batches.iter().for_each(|batch| frontier = integrate(&frontier, batch).unwrap().frontier);
    });

    let mut edge = Edge::empty();
    for i in 0..ENTRIES {
        let entry = entry(i);
        edge.push(&entry, Hash::of_leaf(&entry), |r, bytes| files.write(&[(r.path(), bytes.to_vec())])).unwrap();
    }
    for (resource, bytes) in edge.partials() {
        files.write(&[(resource.path(), bytes)]).unwrap();
    }
    let head: Head = edge.head().unwrap();
    let mut note = Note::new(Checkpoint { origin: "bench.example/log".to_owned(), head }.text()).unwrap();
    rate("sign checkpoints", 1000, || (0..1000).for_each(|_| note.clone().sign(&signer).unwrap()));
    note.sign(&signer).unwrap();
    files.replace_checkpoint(&note.encode()).unwrap();

    let tiles = Tiles::new(&files);
    let reader = Published::new(&tiles, ENTRIES);
    rate("inclusion proofs from tiles", 10_000, || {
        (0..10_000).for_each(|i| drop(prove_inclusion(&reader, i * 17 % ENTRIES, ENTRIES).unwrap()));
    });
    rate("consistency proofs from tiles", 10_000, || {
        (0..10_000).for_each(|i| drop(prove_consistency(&reader, 1 + i * 19 % ENTRIES, ENTRIES).unwrap()));
    });
    let trust = TrustPolicy::of_log(signer.verifier().clone());
    rate("verify a directory of 600-byte entries", ENTRIES, || {
        let options = Options { older: None, entry: &mut |_, _| {}, progress: &mut |_, _| {} };
        assert!(matches!(verify(&files, &trust, options).unwrap(), Verdict::Valid(_)));
    });
}

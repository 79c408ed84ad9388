//! Writes a log directory of N small entries and prints its verifier key, so that verifiers that others wrote
//! can be run on it: `write_log DIR N`. With a third argument it keeps the checkpoint of the first half there.
#![expect(clippy::print_stdout, reason = "an example program")]

use auditlog::{
    Error,
    checkpoint::{Checkpoint, Head},
    directory::Directory,
    edge::Edge,
    hash::Hash,
    note::{Ed25519Signer, Note},
    port::{LogFiles, NoteSigner},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: write_log DIR N [OLD_CHECKPOINT_FILE]".into());
    };
    let count: u64 = count.parse()?;
    let half = arguments.next();
    let signer = Ed25519Signer::from_seed("writ.example/interop", &zeroize::Zeroizing::new([7; 32]))?;
    let files = Directory::new(directory);
    let mut edge = Edge::empty();
    for i in 0..count {
        let entry = format!("{{\"entry\":{i}}}");
        edge.push(entry.as_bytes(), Hash::of_leaf(entry.as_bytes()), |resource, bytes| {
            files.write(&[(resource.path(), bytes.to_vec())])
        })?;
        if let Some(path) = half.as_ref().filter(|_| i + 1 == count / 2) {
            std::fs::write(path, sign(&signer, edge.head()?)?)?;
        }
    }
    for (resource, bytes) in edge.partials() {
        files.write(&[(resource.path(), bytes)])?;
    }
    files.replace_checkpoint(&sign(&signer, edge.head()?)?)?;
    println!("{}", signer.verifier());
    Ok(())
}

fn sign(signer: &Ed25519Signer, head: Head) -> Result<Vec<u8>, Error> {
    let origin = signer.verifier().name().to_owned();
    let mut note = Note::new(Checkpoint { origin, head }.text())?;
    note.sign(signer)?;
    Ok(note.encode())
}

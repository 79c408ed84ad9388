//! What a compromised control plane could try at the signing port, and that it signs nothing then.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::event::hex;
use auditlog::checkpoint::{Checkpoint, Head};
use auditlog::hash::Hash;
use auditlog::note::{Ed25519Signer, Note};
use auditlog::port::{HashReader, NoteSigner};
use auditlog::proof::{prove_consistency, prove_inclusion};
use auditlog::tree::{Frontier, Node};
use std::collections::HashMap;
use token::UnixSeconds;
use token::claims::AccessClaims;
use token::sign::Es256Signer;
use zeroize::Zeroizing;

struct Log {
    signer: Ed25519Signer,
    frontier: Frontier,
    nodes: HashMap<Node, Hash>,
    leaves: Vec<Vec<u8>>,
}

impl HashReader for Log {
    fn hash(&self, node: Node) -> Result<Hash, auditlog::Error> {
        Ok(*self.nodes.get(&node).unwrap())
    }
}

impl Log {
    fn new(seed: u8) -> Self {
        let signer = Ed25519Signer::from_seed("log.test", &Zeroizing::new([seed; 32])).unwrap();
        Self { signer, frontier: Frontier::empty(), nodes: HashMap::new(), leaves: Vec::new() }
    }

    fn append(&mut self, event: &str) -> u64 {
        let leaf = format!(r#"{{"event":{event},"v":1}}"#).into_bytes();
        let Self { frontier, nodes, .. } = self;
        frontier.push(Hash::of_leaf(&leaf), |node, hash| {
            nodes.insert(node, hash);
        });
        self.leaves.push(leaf);
        self.leaves.len() as u64 - 1
    }

    fn show(&self, index: u64) -> Inclusion {
        let head = Head { size: self.leaves.len() as u64, root: self.frontier.root() };
        let mut note = Note::new(Checkpoint { origin: "log.test".into(), head }.text()).unwrap();
        note.sign(&self.signer).unwrap();
        Inclusion {
            index,
            leaf: self.leaves.get(usize::try_from(index).unwrap()).unwrap().clone(),
            proof: bytes(&prove_inclusion(self, index, head.size).unwrap()),
            checkpoint: String::from_utf8(note.encode()).unwrap(),
            consistency: Vec::new(),
        }
    }

    fn link(&self, old: u64, new: u64) -> Vec<[u8; 32]> {
        bytes(&prove_consistency(self, old, new).unwrap())
    }
}

fn bytes(hashes: &[Hash]) -> Vec<[u8; 32]> {
    hashes.iter().map(|hash| *hash.as_bytes()).collect()
}

fn signer(log: &Log) -> Signer {
    let key = Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8().unwrap()).unwrap();
    let keys = TokenKeys { active: Arc::new(key), published: Vec::new() };
    Signer::new(SignerConfig { log_key: log.signer.verifier().clone(), keys, token_lifetime_secs_max: 300 }).unwrap()
}

fn claims(lifetime: i64) -> CanonicalClaims {
    let claims = AccessClaims {
        issuer: "https://writ.test".into(),
        subject: "bot".into(),
        client_id: "bot".into(),
        audience: vec!["https://writ.test".into()],
        issued_at: UnixSeconds(1_000),
        expires_at: UnixSeconds(1_000 + lifetime),
        token_id: "t1".into(),
        task: "tsk_1".into(),
        intent: "refund".into(),
        act: None,
        confirmation: None,
        scope: None,
        authorization_details: Vec::new(),
    };
    claims.canonical().unwrap()
}

fn decided(claims: &CanonicalClaims, outcome: &str) -> String {
    format!(r#"{{"claims_sha256":"{}","outcome":"{outcome}","type":"decision"}}"#, hex(&claims.digest()))
}

const NO_LINK: Consistency<'static> = Consistency { old: 0, new: 0, proof: &[] };

#[test]
fn it_signs_exactly_what_was_decided_and_included() {
    let mut log = Log::new(1);
    let signer = signer(&log);
    log.append(r#"{"type":"other"}"#);
    let index = log.append(&decided(&claims(60), "allow"));
    assert!(signer.sign(&claims(60), &log.show(index), &NO_LINK).is_ok());
    assert_eq!(signer.seen(), 2);
}

#[test]
fn it_signs_nothing_that_was_not_decided() {
    let mut log = Log::new(1);
    let signer = signer(&log);
    let refused = |shown: &Inclusion, wanted: &CanonicalClaims| signer.sign(wanted, shown, &NO_LINK).unwrap_err();
    let denied = log.append(&decided(&claims(60), "deny"));
    assert_eq!(refused(&log.show(denied), &claims(60)), Refused::NotShown("an entry that allows nothing"));
    let elsewhere = log.append(&decided(&claims(60), "allow"));
    assert_eq!(refused(&log.show(elsewhere), &claims(61)), Refused::NotShown("a decision about other claims"));
    let mut moved = log.show(elsewhere);
    moved.index = 0;
    assert_eq!(refused(&moved, &claims(60)), Refused::NotShown("an entry that is not in the log"));
    let mut forged = log.show(denied);
    forged.leaf = format!(r#"{{"event":{},"v":1}}"#, decided(&claims(60), "allow")).into_bytes();
    assert_eq!(refused(&forged, &claims(60)), Refused::NotShown("an entry that is not in the log"));
    let long = log.append(&decided(&claims(301), "allow"));
    assert_eq!(refused(&log.show(long), &claims(301)), Refused::NotShown("claims that live longer than its ceiling"));
}

#[test]
fn it_accepts_no_log_but_its_own() {
    let mut other = Log::new(2);
    let signer = signer(&Log::new(1));
    let index = other.append(&decided(&claims(60), "allow"));
    let refused = signer.sign(&claims(60), &other.show(index), &NO_LINK).unwrap_err();
    assert_eq!(refused, Refused::NotShown("a checkpoint that is not signed by the log"));
}

#[test]
fn it_accepts_no_second_history() {
    let (mut log, mut fork) = (Log::new(1), Log::new(1));
    let signer = signer(&log);
    let index = log.append(&decided(&claims(60), "allow"));
    signer.sign(&claims(60), &log.show(index), &NO_LINK).unwrap();

    let index = log.append(&decided(&claims(61), "allow"));
    assert_eq!(signer.sign(&claims(61), &log.show(index), &NO_LINK).unwrap_err(), Refused::Moved(1));
    let proof = log.link(1, 2);
    signer.sign(&claims(61), &log.show(index), &Consistency { old: 1, new: 2, proof: &proof }).unwrap();

    // The same key signs a log in which the first decision never was.
    fork.append(r#"{"type":"nothing happened"}"#);
    fork.append(r#"{"type":"nothing happened"}"#);
    let index = fork.append(&decided(&claims(62), "allow"));
    let proof = fork.link(2, 3);
    let refused = signer.sign(&claims(62), &fork.show(index), &Consistency { old: 2, new: 3, proof: &proof }).unwrap_err();
    assert_eq!(refused, Refused::NotShown("a log that is not an extension of what it saw"));
    assert_eq!(signer.seen(), 2, "a refused history leaves no trace");
}

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

#[test]
fn an_entry_that_was_overtaken_is_shown_under_any_head_that_was_accepted_since() {
    let mut log = Log::new(1);
    let signer = signer(&log);
    let first = log.append(&decided(&claims(60), "allow"));
    let overtaken = log.show(first);
    for (lifetime, size) in [(61, 2), (62, 3), (63, 4)] {
        let index = log.append(&decided(&claims(lifetime), "allow"));
        let proof = log.link(size - 1, size);
        let link = if size == 2 { NO_LINK } else { Consistency { old: size - 1, new: size, proof: &proof } };
        signer.sign(&claims(lifetime), &log.show(index), &link).unwrap();
    }
    // The proof was fetched when the gate's newest tree had three leaves; it has four now.
    let proof = log.link(1, 3);
    let refused = signer.sign(&claims(60), &overtaken, &NO_LINK).unwrap_err();
    assert_eq!(refused, Refused::Moved(4));
    signer.sign(&claims(60), &overtaken, &Consistency { old: 1, new: 3, proof: &proof }).unwrap();
    assert_eq!(signer.seen(), 4, "the newest tree stays the newest");
}

#[test]
fn a_second_history_is_refused_below_and_above_what_was_seen() {
    let (mut log, mut fork) = (Log::new(1), Log::new(1));
    let signer = signer(&log);
    for size in 1..=4 {
        let index = log.append(&decided(&claims(60 + size), "allow"));
        let (size, old) = (u64::try_from(size).unwrap(), u64::try_from(size - 1).unwrap());
        let proof = log.link(old, size);
        signer
            .sign(&claims(60 + i64::try_from(size).unwrap()), &log.show(index), &Consistency { old, new: size, proof: &proof })
            .unwrap();
        // The fork shares the first two entries.
        if size <= 2 {
            fork.append(&decided(&claims(60 + i64::try_from(size).unwrap()), "allow"));
        }
    }
    let index = fork.append(&decided(&claims(90), "allow"));
    let shown = fork.show(index);
    let refused = signer.sign(&claims(90), &shown, &NO_LINK).unwrap_err();
    assert_eq!(refused, Refused::NotShown("two trees of one size"));
    for _ in 0..3 {
        fork.append(&decided(&claims(91), "allow"));
    }
    // Above: honestly consistent with an older head that was accepted, and not with the newest.
    let index = fork.append(&decided(&claims(92), "allow"));
    let (shown, proof) = (fork.show(index), fork.link(2, 7));
    let refused = signer.sign(&claims(92), &shown, &Consistency { old: 2, new: 7, proof: &proof }).unwrap_err();
    assert_eq!(refused, Refused::Moved(4));
    assert_eq!(signer.seen(), 4);
}

#[test]
fn a_smaller_tree_of_another_history_is_refused() {
    let (mut log, mut fork) = (Log::new(1), Log::new(1));
    let signer = signer(&log);
    for _ in 0..4 {
        log.append(&decided(&claims(60), "allow"));
    }
    signer.sign(&claims(60), &log.show(3), &NO_LINK).unwrap();
    fork.append(r#"{"type":"nothing happened"}"#);
    let index = fork.append(&decided(&claims(90), "allow"));
    for proof in [log.link(2, 4), Vec::new()] {
        let refused = signer.sign(&claims(90), &fork.show(index), &Consistency { old: 2, new: 4, proof: &proof }).unwrap_err();
        assert_eq!(refused, Refused::NotShown("a log that is not an extension of what it saw"));
    }
}

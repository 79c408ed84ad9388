//! Crashes at every durable step, and databases that went back in time.
//! Each ends in one `check_log` over everything, never in a look at single files alone.

use std::{
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use auditlog::{
    Error,
    checkpoint::{Head, Notary},
    port::{HeadKeeper, LogFiles},
    reader::{Committed, Tiles},
    tree::{Frontier, Tail},
};

use crate::rig::{Fault, Running, World, entry, published, signer};

/// Appends, signs and publishes across two tile boundaries; gives what was acknowledged before the fault.
fn story(world: &mut World, acknowledged: &mut Vec<Vec<u8>>) -> Result<(), Error> {
    let mut run = world.start()?;
    let mut next = 0;
    for count in [200, 100, 1, 230] {
        let batch: Vec<_> = (next..next + count).map(entry).collect();
        world.append(&mut run, &batch)?;
        acknowledged.extend(batch);
        next += count;
        if count == 1 {
            world.sign_now(&mut run)?;
        } else {
            world.publish(&mut run)?;
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_forks_nothing() {
    let mut world = World::new();
    story(&mut world, &mut Vec::new()).unwrap();
    let steps = world.rows.faults.count.get();
    assert!(steps > 30, "the story has {steps} durable steps");
    for step in 0..steps {
        for fault in [Fault::Failed, Fault::FailedButPersisted] {
            let mut world = World::new();
            let mut acknowledged = Vec::new();
            world.rows.faults.at.set(Some((step, fault)));
            let failed = story(&mut world, &mut acknowledged).is_err();
            assert!(failed, "step {step} was not reached");
            let report = world.check_log(&acknowledged);
            assert!(report.head.size >= acknowledged.len() as u64, "step {step}, {fault:?}");
        }
    }
}

#[test]
fn a_failed_round_is_repeated_without_a_restart() {
    for step in 1..12 {
        let mut world = World::new();
        let mut run = world.start().unwrap();
        let entries: Vec<_> = (0..300).map(entry).collect();
        world.append(&mut run, &entries).unwrap();
        let base = world.rows.faults.count.get();
        world.rows.faults.at.set(Some((base + step - 1, Fault::Failed)));
        let _ = world.publish(&mut run);
        world.rows.faults.at.set(None);
        world.publish(&mut run).unwrap();
        assert_eq!(world.verify(None).0.head.size, 300, "step {step}");
        world.check_log(&entries);
    }
}

#[test]
fn a_database_older_than_the_anchor_is_refused() {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    world.append(&mut run, &[entry(0), entry(1)]).unwrap();
    let backup = world.rows.clone();
    world.append(&mut run, &[entry(2)]).unwrap();
    world.sign_now(&mut run).unwrap();
    world.rows = backup;
    let refused = world.start().err().unwrap();
    assert!(matches!(refused, Error::DatabaseBehind { database: 2, signed: 3 }), "{refused}");
}

#[test]
fn a_database_older_than_the_published_checkpoint_is_refused() {
    let mut world = published(10);
    let (backup, anchor) = (world.rows.clone(), std::fs::read(world.anchor_path()).unwrap());
    let mut run = world.start().unwrap();
    world.append(&mut run, &[entry(10)]).unwrap();
    world.publish(&mut run).unwrap();
    // The backup held database and anchor; only the published files are newer.
    world.rows = backup;
    std::fs::write(world.anchor_path(), anchor).unwrap();
    let refused = world.start().err().unwrap();
    assert!(matches!(refused, Error::DatabaseBehind { database: 10, signed: 11 }), "{refused}");
}

#[test]
fn a_database_that_was_restored_and_continued_is_refused_as_a_fork() {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    world.append(&mut run, &[entry(0)]).unwrap();
    let backup = (world.rows.clone(), run.frontier.clone());
    world.append(&mut run, &[entry(1)]).unwrap();
    world.sign_now(&mut run).unwrap();
    // The other history grows past what was signed, so that sizes alone look fine.
    (world.rows, run.frontier) = backup;
    world.append(&mut run, &[entry(7), entry(8)]).unwrap();
    let refused = world.start().err().unwrap();
    assert!(matches!(refused, Error::Fork { .. }), "{refused}");
}

#[test]
fn the_notary_signs_no_head_that_does_not_extend_what_it_signed() {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    world.append(&mut run, &[entry(0), entry(1)]).unwrap();
    world.sign_now(&mut run).unwrap();
    let honest = (run.frontier.clone(), run.tail.clone());
    // In memory, somebody swaps the tree for another one: larger, equal and smaller than what was signed.
    for entries in [vec![entry(5), entry(6), entry(7)], vec![entry(5), entry(6)], vec![entry(5)]] {
        run.frontier = auditlog::tree::Frontier::empty();
        run.tail = Tail::new(run.frontier.clone());
        world.append(&mut run, &entries).unwrap();
        let refused = world.sign_now(&mut run).unwrap_err();
        // The smaller one cannot even name the hashes that a proof towards the signed head would need.
        let expected =
            if entries.len() < 2 { matches!(refused, Error::NodeMissing { .. }) } else { matches!(refused, Error::Fork { .. }) };
        assert!(expected, "{} entries: {refused}", entries.len());
    }
    (run.frontier, run.tail) = honest;
    world.sign_now(&mut run).unwrap();
    assert_eq!(run.notary.newest(), Head { size: 2, root: run.frontier.root() });
}

/// A disk that takes as long as the test wants.
struct SlowKeeper {
    begun: SyncSender<u64>,
    go_on: Receiver<()>,
}

impl HeadKeeper for SlowKeeper {
    fn keep(&mut self, head: Head, _: &[u8]) -> Result<(), Error> {
        self.begun.send(head.size).unwrap();
        self.go_on.recv().unwrap();
        Ok(())
    }
}

#[test]
fn a_head_is_checked_while_another_one_is_made_durable_and_counts_from_then_on() {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    let head = |run: &Running| Head { size: run.frontier.size(), root: run.frontier.root() };
    world.append(&mut run, &[entry(0)]).unwrap();
    let (first, first_tail) = (head(&run), run.tail.clone());
    world.append(&mut run, &[entry(1)]).unwrap();
    let (second, second_tail) = (head(&run), run.tail.clone());
    run.frontier = Frontier::empty();
    run.tail = Tail::new(run.frontier.clone());
    world.append(&mut run, &[entry(7), entry(8), entry(9)]).unwrap();
    let (other, other_tail) = (head(&run), run.tail.clone());

    let ((begun, has_begun), (go, go_on)) = (sync_channel(2), sync_channel(2));
    let notary = Notary::new(Box::new(signer()), SlowKeeper { begun, go_on }, Head::empty());
    let tiles = Tiles::new(world.directory());
    let draft = notary.draft(first, &Committed::new(&first_tail, &tiles, 0)).unwrap();
    std::thread::scope(|scope| {
        // Dropped with this closure, so that what fails here does not leave the keeper waiting.
        let go = go;
        let keeping = scope.spawn(|| notary.keep(draft).unwrap());
        assert_eq!(has_begun.recv().unwrap(), 1);
        // The disk is still busy with the first.
        let draft = notary.draft(second, &Committed::new(&second_tail, &tiles, 0)).unwrap();
        let fork = notary.draft(other, &Committed::new(&other_tail, &tiles, 0)).err().unwrap();
        assert!(matches!(fork, Error::Fork { .. }), "a draft binds before it is durable: {fork}");
        assert_eq!(notary.newest(), second);
        go.send(()).unwrap();
        go.send(()).unwrap();
        notary.keep(draft).unwrap();
        keeping.join().unwrap();
    });
}

#[test]
fn a_changed_or_missing_batch_is_found_at_start_and_before_publishing() {
    let build = || {
        let mut world = World::new();
        let mut run = world.start().unwrap();
        for i in 0..3 {
            world.append(&mut run, &[entry(i), entry(i + 10)]).unwrap();
        }
        (world, run)
    };
    let (mut world, mut run) = build();
    *world.rows.batches[1].packed.last_mut().unwrap() ^= 1;
    assert!(matches!(world.publish(&mut run), Err(Error::BatchChanged { first: 2 })));
    assert!(matches!(world.start().err(), Some(Error::BatchChanged { first: 2 })));

    let (mut world, mut run) = build();
    world.rows.batches.remove(1);
    assert!(matches!(world.publish(&mut run), Err(Error::BatchGap { expected: 2, found: 4 })));
    assert!(matches!(world.start().err(), Some(Error::BatchGap { expected: 2, found: 4 })));
}

#[test]
fn damaged_files_at_the_edge_are_found_at_start() {
    for (path, missing) in [
        ("tile/0/001.p/44", false),
        ("tile/0/001.p/44", true),
        ("tile/1/000.p/1", false),
        ("tile/entries/001.p/44", false),
        ("tile/entries/001.p/44", true),
        ("checkpoint", false),
    ] {
        let mut world = published(300);
        let file = world.directory().root().join(path);
        let mut bytes = std::fs::read(&file).unwrap();
        if missing {
            std::fs::remove_file(&file).unwrap();
        } else {
            bytes[9] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        let refused = world.start().err().unwrap_or_else(|| panic!("{path} was accepted"));
        let expected =
            if missing { matches!(refused, Error::FileMissing { .. }) } else { matches!(refused, Error::FileCorrupt { .. }) };
        assert!(expected, "{path}: {refused}");
    }
}

#[test]
fn a_directory_that_was_taken_away_or_put_back_from_a_copy_is_not_gone_on_with() {
    for older in [None, Some(200), Some(256)] {
        let mut world = World::new();
        let mut run = world.start().unwrap();
        let (root, kept) = (world.directory().root().to_owned(), world.dir.path().join("kept"));
        world.append(&mut run, &(0..older.unwrap_or(0).max(1)).map(entry).collect::<Vec<_>>()).unwrap();
        world.publish(&mut run).unwrap();
        let copy = world.dir.path().join("copy");
        copy_all(&root, &copy);
        world.append(&mut run, &[entry(1000), entry(1001)]).unwrap();
        world.publish(&mut run).unwrap();
        std::fs::rename(&root, &kept).unwrap();
        if older.is_some() {
            std::fs::rename(&copy, &root).unwrap();
        }
        world.append(&mut run, &[entry(1002)]).unwrap();
        assert!(matches!(world.publish(&mut run), Err(Error::FileMissing { .. })), "{older:?}");
        assert_eq!(root.exists(), older.is_some(), "nothing is made anew");
        // Back in its place it goes on.
        drop(std::fs::remove_dir_all(&root));
        std::fs::rename(&kept, &root).unwrap();
        world.publish(&mut run).unwrap();
        assert_eq!(world.verify(None).0.head.size, older.unwrap_or(1) + 3);
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for found in std::fs::read_dir(from).unwrap() {
        let (found, to) = (found.unwrap(), |name| to.join(name));
        match found.file_type().unwrap().is_dir() {
            true => copy_all(&found.path(), &to(found.file_name())),
            false => drop(std::fs::copy(found.path(), to(found.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_lost_checkpoint_file_is_written_again() {
    let mut world = published(300);
    std::fs::remove_file(world.directory().root().join("checkpoint")).unwrap();
    world.start().unwrap();
    assert_eq!(world.verify(None).0.head.size, 300);
}

#[test]
fn a_torn_anchor_slot_falls_back_to_the_other_and_a_spoilt_anchor_is_refused() {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    for i in 0..3 {
        world.append(&mut run, &[entry(i)]).unwrap();
        world.sign_now(&mut run).unwrap();
    }
    let bytes = std::fs::read(world.anchor_path()).unwrap();
    let newest_slot = if bytes[..4096].windows(3).any(|w| w == b"\n3\n") { 0 } else { 4096 };
    let mut torn = bytes.clone();
    torn[newest_slot + 60] ^= 1;
    std::fs::write(world.anchor_path(), &torn).unwrap();
    assert_eq!(world.start().unwrap().notary.newest().size, 2);
    std::fs::write(world.anchor_path(), vec![0; 8192]).unwrap();
    assert!(matches!(world.start().err(), Some(Error::AnchorUnreadable { .. })));
}

#[test]
fn an_immutable_file_is_never_overwritten_with_other_bytes() {
    let world = published(300);
    let files = world.directory();
    let path = "tile/0/000".to_owned();
    let bytes = files.read(&path).unwrap().unwrap();
    files.write(&[(path.clone(), bytes.clone())]).unwrap();
    let other = vec![1; bytes.len()];
    assert!(matches!(files.write(&[(path.clone(), other)]), Err(Error::FileCorrupt { .. })));
    assert_eq!(files.read(&path).unwrap().unwrap(), bytes);
    assert!(files.read("tile/0/../../anchor").is_err());
}

//! Killed at every step, again and again: everything in memory is dropped where the step says that it is, what stood in the
//! store and at the target stays, and in the end nothing stands that should not.

use crate::rig::Rig;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use testkit::{At, Fails, Fault};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// Rounds of the random test.
const ROUNDS: u64 = 1_000;

/// Hears of the steps, and dies at the one that it was told.
struct Mortal {
    left: AtomicU64,
    dead: AtomicBool,
    steps: Mutex<Vec<String>>,
    dying: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Mortal {
    fn dying_at(step: u64) -> Self {
        Self { left: AtomicU64::new(step), dead: AtomicBool::new(false), steps: Mutex::default(), dying: Mutex::default() }
    }
}

struct Name(Option<String>);

impl Visit for Name {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "at" {
            self.0 = Some(value.to_owned());
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The same one, where a subscriber is wanted.
struct Shared(Arc<Mortal>);

impl Subscriber for Shared {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "writ::step"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut name = Name(None);
        event.record(&mut name);
        let Some(name) = name.0 else { return };
        self.0.steps.lock().unwrap().push(name);
        if self.0.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.dead.store(true, Ordering::SeqCst);
            // From here on nothing of this process reaches store or target, whatever still runs of it.
            if let Some(die) = &*self.0.dying.lock().unwrap() {
                die();
            }
        }
        if self.0.dead.load(Ordering::SeqCst) {
            std::panic::panic_any(Killed);
        }
    }
}

struct Killed;

fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Killed>() {
                loud(info);
            }
        }));
    });
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// A life: tasks get credentials, some fail, tasks end or give back, things expire, workers run.
async fn life(rig: &Rig, dice: &mut Dice) {
    rig.world.authority.run_credentials().await;
    for _ in 0..2 {
        let (_, caller) = rig.task().await;
        if dice.below(3) == 0 {
            let how = [Fails::Before, Fails::After, Fails::Refuses][dice.below(3) as usize];
            rig.orders.break_at(At::ALL[dice.below(5) as usize], Some(how));
        }
        rig.orders.by_name(dice.below(2) == 0);
        if dice.below(4) == 0 {
            rig.world.ledger.lose_next_followed();
        }
        let issued = rig.read_orders(&caller).await;
        if let Ok(issued) = &issued {
            let _ = rig.orders.log_in(&issued.handle);
        }
        match (dice.below(4), issued) {
            (0, Ok(issued)) => drop(rig.world.authority.return_credential(&caller, issued.grant).await),
            (1, _) => rig.world.clock.advance_secs(700),
            (2, _) => {}
            _ => {
                let by = authority::Actor::System;
                let _ = rig.world.authority.end_task(caller.task(), &by, domain::EndReason::Revoked).await;
            }
        }
        rig.world.authority.run_credentials().await;
        for at in At::ALL {
            rig.orders.break_at(at, None);
        }
        rig.world.clock.advance_secs(dice.below(5));
        rig.world.authority.run_credentials().await;
    }
}

/// Lives until the given step, dies there, starts again and is watched for what is left. Answers the steps of the life.
fn live_and_die(seed: u64, at: u64) -> Vec<String> {
    quietly();
    // A second one that lives on: while there is just one, `tracing` lets whichever thread comes to a step first say for all
    // threads whether anybody listens, and the tests beside this one do not.
    static ANOTHER: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    ANOTHER.get_or_init(|| tracing::Dispatch::new(Shared(Arc::new(Mortal::dying_at(u64::MAX)))));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let rig = Arc::new(first.block_on(Rig::unprobed(Default::default(), Default::default(), Default::default())));
    rig.orders.put_foreign("postgres");
    let (ledger, orders, other) = (Arc::clone(&rig.world.ledger), Arc::clone(&rig.orders), Arc::clone(&rig.other));
    let mortal = Arc::new(Mortal::dying_at(at));
    *mortal.dying.lock().unwrap() = Some(Box::new(move || {
        ledger.break_with(Some(Fault::Failed));
        orders.away(true);
        other.away(true);
    }));
    let living = Arc::clone(&rig);
    tracing::subscriber::with_default(Shared(Arc::clone(&mortal)), || {
        // The death of a task that it spawned, and its own.
        let lived = first.block_on(async move { tokio::spawn(async move { life(&living, &mut Dice(seed)).await }).await });
        assert!(lived.is_ok() || mortal.dead.load(Ordering::SeqCst), "seed {seed}, step {at}: {lived:?}");
    });
    drop(first);
    rig.world.ledger.break_with(None);
    rig.orders.away(false);
    rig.other.away(false);
    for step in At::ALL {
        rig.orders.break_at(step, None);
    }
    runtime().block_on(async {
        let rig = rig.restarted().await;
        // Past every grace, every task's deadline and every credential's.
        for _ in 0..8 {
            rig.live_on(3).await;
            rig.world.clock.advance_secs(900);
            let _ = rig.world.authority.sweep().await;
        }
        rig.live_on(40).await;
        let left = (rig.orders.standing(), rig.other.standing(), rig.orders.sessions());
        assert_eq!(left, (Vec::new(), Vec::new(), 0), "seed {seed}, step {at}");
        assert!(rig.all_dead().await, "seed {seed}, step {at}: {:#?}", rig.grants().await);
        assert_eq!(rig.orders.foreign(), ["postgres"]);
    });
    mortal.steps.lock().unwrap().clone()
}

#[test]
fn killed_at_each_step_of_one_life_nothing_is_left_over() {
    let whole = live_and_die(7, u64::MAX);
    let issuing = ["decided", "logged", "issued", "recorded", "handed_out", "step"].map(|step| format!("credential.{step}"));
    for named in &issuing {
        assert!(whole.iter().any(|step| step == named), "{named} is not in {whole:?}");
    }
    for at in 1..=whole.len() as u64 {
        live_and_die(7, at);
    }
}

#[test]
fn killed_at_random_in_random_lives_nothing_is_left_over() {
    let mut dice = Dice(1);
    for seed in 0..ROUNDS {
        live_and_die(seed, 1 + dice.below(120));
    }
}

//! For tests of kinds that speak to an HTTP API: surroundings with a clock that stands still, and targets and plans without
//! the rest of Writ. The other side is in `testkit::peer`, shared with the tests of the whole product.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::config::{OfferConfig, Surroundings, TargetConfig};
use authority::target::{Asked, Plan, Target, Verifier};
use domain::{AgentId, GrantId, IntentName, Offer, Params, SecretRef, TaskId, Timestamp, ToolTraits, Value};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Surroundings with secrets by name and a clock that is moved by hand.
pub(crate) struct Still {
    pub(crate) secrets: BTreeMap<&'static str, String>,
    pub(crate) now: Mutex<Timestamp>,
}

impl Still {
    pub(crate) fn new(secrets: impl IntoIterator<Item = (&'static str, String)>) -> Arc<Self> {
        Arc::new(Self { secrets: secrets.into_iter().collect(), now: Mutex::new(NOW) })
    }

    /// The same clock for the other side.
    pub(crate) fn clock(self: &Arc<Self>) -> testkit::peer::Now {
        let still = Arc::clone(self);
        Arc::new(move || still.now().secs())
    }

    pub(crate) fn advance_secs(&self, secs: u64) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus_secs(secs);
    }
}

impl Surroundings for Still {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        let (SecretRef::Env(name) | SecretRef::File(name)) = reference;
        self.secrets.get(name.as_str()).map(|secret| secret.as_str().into()).ok_or_else(|| format!("`{name}` is not set"))
    }

    fn locate(&self, path: &str) -> PathBuf {
        path.into()
    }

    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
}

/// When the tests of kinds happen: 2026-11-22.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

/// A target of this kind, from the text of its file. Parameters are declared by the names in `params`, all texts.
pub(crate) fn configured(kind: &str, text: &str, params: &[&str]) -> TargetConfig {
    let mut file: toml::Table = text.parse().unwrap();
    let table = |value: Option<toml::Value>| value.and_then(|value| value.try_into().ok()).unwrap_or_default();
    let connect = table(file.remove("connect"));
    let offers: toml::Table = table(file.remove("offers"));
    let offer = |name: &str| Offer {
        name: name.parse().unwrap(),
        description: String::new(),
        params: params.iter().map(|&name| (name.to_owned(), text_param())).collect(),
        traits: ToolTraits::default(),
        lifetime_secs: 900,
    };
    let offers = offers.into_iter().map(|(name, own)| {
        let config = OfferConfig { offer: offer(&name), own: table(Some(own)) };
        (name.parse().unwrap(), config)
    });
    TargetConfig { kind: kind.to_owned(), name: "probed".parse().unwrap(), connect, offers: offers.collect() }
}

fn text_param() -> domain::Param {
    domain::Param {
        kind: domain::ParamType::Text,
        description: String::new(),
        default: None,
        min: None,
        max: None,
        one_of: Vec::new(),
        sensitive: false,
    }
}

/// Opens it; its faults fail the test.
pub(crate) fn opened(config: &TargetConfig, surroundings: &Arc<Still>) -> Arc<dyn Target> {
    let surroundings: Arc<dyn Surroundings> = Arc::clone(surroundings) as _;
    crate::open(config, &surroundings).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A plan for 300 seconds of `offer` with these parameters.
pub(crate) fn planned(
    target: &dyn Target,
    config: &TargetConfig,
    offer: &str,
    params: &[(&str, &str)],
    verifier: Option<&Verifier>,
) -> Result<Plan, authority::target::TargetError> {
    let agent: AgentId = "support-bot".parse().unwrap();
    let intent: IntentName = "triage".parse().unwrap();
    let params = params.iter().map(|&(name, value)| (name.to_owned(), Value::Text(value.to_owned())));
    target.plan(&Asked {
        grant: GrantId::from_bytes([0x5a; 16]),
        task: TaskId::from_bytes([7; 16]),
        agent: &agent,
        intent: &intent,
        offer: &config.offers.get(offer).unwrap().offer,
        params: &Params(params.collect()),
        verifier,
        now: NOW,
        expires_at: NOW.plus_secs(300),
        entropy: [9; 32],
    })
}

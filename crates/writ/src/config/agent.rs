//! `agents/*.toml`: one agent a file, its name the file's. The inventory as code (R3).

use super::fault::Fault;
use super::option::{Opt, Section, opt};
use super::read::{Placed, Table};
use domain::{Agent, AgentId, AgentState, ClaimPattern, IdentityRule, IntentName, OwnerId, ProviderName, Timestamp};
use toml::de::DeValue;

/// The root of an agent file.
pub(crate) static AGENT: Section = Section {
    header: "agents/NAME.toml",
    doc: "An agent: one file each, named for it. An agent without an owner, overdue for review, suspended or not registered gets no task.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    opt("owner", "a name", "required", "The team or person who answers for it."),
    opt("purpose", "text", "required", "Why it exists, in a sentence, for reviewers."),
    opt(
        "review_by",
        "a date `YYYY-MM-DD`",
        "required",
        "Until when its registration was reviewed. From that day (UTC) on it gets no task.",
    ),
    opt(
        "intents",
        "a list of intent names",
        "required",
        "The intents that it may declare: its ceiling, whatever policy permits.",
    ),
    opt("suspended", "`true` or `false`", "`false`", "Whether it may act at all."),
    opt(
        "allow_bearer",
        "`true` or `false`",
        "`false`",
        "Whether it may hold tokens that are not bound to a key. Flagged wherever it is shown.",
    ),
    opt("identity", "tables `[[identity]]`", "required", "How it proves itself; any one suffices."),
];

/// `[[identity]]` of an agent file.
pub(crate) static IDENTITY: Section = Section {
    header: "[[identity]]",
    doc: "One way in which an agent proves itself: a provider, and claims that all must match exactly.",
    options: IDENTITY_OPTIONS,
};

const IDENTITY_OPTIONS: &[Opt] = &[
    opt("provider", "the name of a `[[provider]]`", "required", "Who must have vouched."),
    opt(
        "claims",
        "a table",
        "required",
        "Claim and value; `sub` is the subject or SPIFFE ID, nested claims are joined by `/`. Prefer claims that cannot be reused, such as `repository_id`. `{ prefix = \"…\" }` matches a beginning and is flagged in reviews.",
    ),
];

/// Reads one agent.
pub(crate) fn read(table: &Table<'_>, id: AgentId) -> Option<Agent> {
    let owner = table.needed_parsed::<OwnerId>("owner");
    let purpose = table.needed("purpose");
    let review_by = table.needed("review_by").and_then(|given| date(table, &given));
    let intents = table.texts("intents");
    if intents.is_none() && !table.has("intents") {
        table.push(table.fault("an agent needs `intents`").help("an empty list means that it may do nothing"));
    }
    let intents = intents.unwrap_or_default();
    let intents = intents.iter().filter_map(|name| table.parse::<IntentName>(name)).map(|name| name.value).collect();
    let suspended = table.flag("suspended").unwrap_or(false);
    let allow_bearer = table.flag("allow_bearer").unwrap_or(false);
    let rules = table.tables("identity", &IDENTITY, read_rule);
    if !table.has("identity") {
        table.push(table.fault("an agent needs at least one `[[identity]]`").help("without one it can never prove itself"));
    }
    Some(Agent {
        id,
        owner: Some(owner?.value),
        purpose: purpose?.value,
        rules,
        intents,
        review_by: review_by?,
        state: if suspended { AgentState::Suspended } else { AgentState::Active },
        allow_bearer,
        declared: true,
    })
}

/// Midnight UTC at the start of a date.
fn date(table: &Table<'_>, given: &Placed<String>) -> Option<Timestamp> {
    let zoned = given.value.parse::<jiff::civil::Date>().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC));
    match zoned {
        Ok(zoned) => Some(Timestamp::from_millis(zoned.timestamp().as_millisecond())),
        Err(_) => {
            table.push(given.fault(format!("`{}` is not a date", given.value)).help("write it as \"2027-03-31\""));
            None
        }
    }
}

fn read_rule(table: &Table<'_>) -> Option<IdentityRule> {
    let provider = table.needed_parsed::<ProviderName>("provider");
    let claims = table.open_table("claims");
    if claims.is_empty() {
        table.push(table.fault("an identity rule needs `claims`: a rule without one would match nobody"));
    }
    let mut patterns = Vec::new();
    for (name, value) in claims {
        match pattern(&value) {
            Ok(pattern) => patterns.push((name.value, pattern)),
            Err(fault) => table.push(fault),
        }
    }
    Some(IdentityRule { provider: provider?.value, claims: patterns })
}

fn pattern(value: &Placed<&DeValue<'_>>) -> Result<ClaimPattern, Fault> {
    let refuse = || {
        let fault = value.fault("a claim must equal text, a whole number or a truth value");
        fault.help("write the value itself, or `{ prefix = \"…\" }` for text that begins so")
    };
    Ok(match value.value {
        DeValue::String(text) => ClaimPattern::Exact(text.as_ref().into()),
        DeValue::Boolean(truth) => ClaimPattern::Exact((*truth).into()),
        DeValue::Integer(integer) => {
            ClaimPattern::Exact(i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| refuse())?.into())
        }
        DeValue::Table(entries) => match entries.iter().collect::<Vec<_>>().as_slice() {
            [(key, prefix)] if key.get_ref() == "prefix" => match prefix.get_ref().as_str() {
                Some("") => return Err(value.fault("an empty prefix would match everything")),
                Some(prefix) => ClaimPattern::Prefix(prefix.to_owned()),
                None => return Err(refuse()),
            },
            _ => return Err(refuse()),
        },
        _ => return Err(refuse()),
    })
}

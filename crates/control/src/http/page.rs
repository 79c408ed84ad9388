//! Pages of a listing: `{"items": […], "next": cursor or null}`. The cursor names the last item shown. Knows nothing of
//! what is listed.

use crate::body::Query;
use crate::problem::{Fault, Problem};
use serde_json::{Value, json};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;

/// How many items the caller wants.
pub(crate) fn limit(query: &Query) -> Result<usize, Problem> {
    match query.parsed::<usize>("limit", &format!("a number from 1 to {LIMIT_MAX}"))? {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(_) => {
            Err(Problem::faults(vec![Fault { at: "limit".into(), detail: format!("expected a number from 1 to {LIMIT_MAX}") }]))
        }
    }
}

/// One page of these items.
pub(crate) fn page<T>(
    items: impl IntoIterator<Item = T>,
    limit: usize,
    cursor: impl Fn(&T) -> String,
    shown: impl Fn(&T) -> Value,
) -> Value {
    let mut items = items.into_iter();
    let page: Vec<T> = items.by_ref().take(limit).collect();
    let next = items.next().and_then(|_| page.last()).map(&cursor);
    json!({ "items": page.iter().map(shown).collect::<Vec<_>>(), "next": next })
}

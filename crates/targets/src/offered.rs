//! Both ends of a plan, for the kinds whose platform makes the secret itself: what is offered, and how what will be done is
//! written down so that it can be decided. Knows no platform.

use authority::target::{Asked, Plan, TargetError};
use domain::{OfferName, SecretOrigin, Timestamp};
use secrecy::SecretBox;
use serde::Serialize;
use std::collections::BTreeMap;

/// The template of what is asked for. `maker` says who makes the secret: `STS makes its credentials`.
///
/// # Errors
/// [`TargetError::Unacceptable`] if it is not offered, or if the caller made a secret.
pub(crate) fn template<'a, T>(
    templates: &'a BTreeMap<OfferName, T>,
    asked: &Asked<'_>,
    maker: &str,
) -> Result<&'a T, TargetError> {
    let unacceptable = |why: String| Err(TargetError::Unacceptable(why));
    match templates.get(&asked.offer.name) {
        None => unacceptable(format!("there is no offer `{}`", asked.offer.name)),
        Some(_) if asked.verifier.is_some() => unacceptable(format!("{maker} itself; send no verifier")),
        Some(template) => Ok(template),
    }
}

/// The plan whose canonical bytes are those of `carried`.
///
/// # Errors
/// [`TargetError::Unacceptable`] if it cannot be written.
pub(crate) fn plan(
    asked: &Asked<'_>,
    carried: &impl Serialize,
    (handle, expires_at): (String, Timestamp),
    summary: Vec<String>,
) -> Result<Plan, TargetError> {
    let unwritable = |_| TargetError::Unacceptable("the plan cannot be written".to_owned());
    Ok(Plan {
        grant: asked.grant,
        offer: asked.offer.name.clone(),
        handle,
        expires_at,
        secret: SecretOrigin::Writ,
        summary,
        canonical: serde_json::to_vec(carried).map_err(unwritable)?,
        secret_seed: SecretBox::new(Box::new(asked.entropy)),
    })
}

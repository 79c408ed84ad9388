//! What one offer lets be signed: principals, force-command, source addresses, extensions. Owns the safe placing of
//! parameters into a command line that a shell on the host will read. It knows no key.

use super::signer::Ceilings;
use crate::config::OfferSection;
use authority::target::{Finding, Gravity, TargetError};
use domain::{OfferName, Params, Value};
use ssh_key::PublicKey;
use std::collections::BTreeMap;

/// Longest parameter that is placed into a command, in bytes.
const PLACED_BYTES_MAX: usize = 128;

/// Longest public key of a caller, in bytes.
const KEY_BYTES_MAX: usize = 2_048;

/// One offer of a group of hosts.
#[derive(Debug)]
pub(super) struct SshOffer {
    pub(super) user: String,
    pub(super) principals: Vec<String>,
    pub(super) extensions: Vec<String>,
    force_command: Option<String>,
    source_address: Vec<String>,
}

impl SshOffer {
    pub(super) fn read(section: &OfferSection<'_>, ceilings: &Ceilings) -> Self {
        let own = &section.own;
        let offer = Self {
            user: own.word("user", "deploy"),
            principals: own.words("principals"),
            extensions: own.texts("extensions"),
            force_command: own.text_if("force_command"),
            source_address: own.texts("source_address"),
        };
        if offer.principals.is_empty() {
            own.fault(
                "principals",
                "no principal",
                "name the roles that the hosts map to unix users: principals = [\"restart-web\"]",
            );
        }
        for name in offer.principals.iter().filter(|name| !ceilings.principals.contains(*name)) {
            own.fault("principals", format!("`{name}` is not in `connect.principals`"), "");
        }
        for name in offer.extensions.iter().filter(|name| !ceilings.extensions.contains(*name)) {
            own.fault("extensions", format!("`{name}` is not in `connect.extensions`"), "");
        }
        for address in offer.source_address.iter().filter(|address| !is_network(address)) {
            own.fault("source_address", format!("`{address}` is no address and no network"), "for example \"10.1.0.0/16\"");
        }
        if ceilings.source_address && offer.source_address.is_empty() {
            own.fault("source_address", "`connect.source_address_required` asks for it", "");
        }
        if ceilings.force_command && offer.force_command.is_none() {
            own.fault(
                "force_command",
                "`connect.force_command_required` asks for it",
                "for example \"/usr/local/sbin/restart {service}\"",
            );
        }
        for name in offer.force_command.iter().flat_map(|command| placeholders(command)) {
            if !section.offer.params.contains_key(name) {
                own.fault("force_command", format!("`{{{name}}}` is no parameter of this offer"), "");
            }
        }
        offer
    }

    /// The critical options for these parameters.
    pub(super) fn critical(&self, params: &Params) -> Result<BTreeMap<&'static str, String>, TargetError> {
        let mut critical = BTreeMap::new();
        if let Some(command) = &self.force_command {
            let mut text = command.clone();
            for name in placeholders(command) {
                text = text.replace(&format!("{{{name}}}"), &placed(name, params.get(name))?);
            }
            critical.insert("force-command", text);
        }
        if !self.source_address.is_empty() {
            critical.insert("source-address", self.source_address.join(","));
        }
        Ok(critical)
    }

    pub(super) fn findings(&self, name: &OfferName) -> Vec<Finding> {
        let wide =
            |check, found: String, remedy: &str| Finding { gravity: Gravity::Warning, check, found, remedy: remedy.to_owned() };
        let mut findings = Vec::new();
        if self.force_command.is_none() {
            findings.push(wide("offer.shell", format!("`{name}` gives a whole shell"), "set `force_command`"));
        }
        if self.source_address.is_empty() {
            findings.push(wide("offer.anywhere", format!("`{name}` can be used from anywhere"), "set `source_address`"));
        }
        for extension in self.extensions.iter().filter(|extension| extension.as_str() != "permit-pty") {
            findings.push(wide("offer.extension", format!("`{name}` has `{extension}`"), "remove it if the task can do without"));
        }
        findings
    }
}

/// The names between braces.
fn placeholders(command: &str) -> impl Iterator<Item = &str> {
    command.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

/// A parameter as one word of a shell's command line, or a refusal. Nothing is quoted: what would need it is refused, and
/// so is what a program could take for an option or for a way out of a folder.
fn placed(name: &str, value: Option<&Value>) -> Result<String, TargetError> {
    let text = match value {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Long(number)) if *number >= 0 => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        _ => return Err(TargetError::Unacceptable(format!("parameter `{name}` cannot be placed into a command"))),
    };
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte));
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if plain && begins && !text.contains("..") && text.len() <= PLACED_BYTES_MAX {
        return Ok(text);
    }
    Err(TargetError::Unacceptable(format!(
        "parameter `{name}` goes into a command: only letters, digits and `._:@-`, beginning with a letter or digit, at most {PLACED_BYTES_MAX} bytes"
    )))
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| (1..=most).contains(&bits)))
}

/// The caller's public key.
pub(super) fn public_key(text: &str) -> Result<PublicKey, TargetError> {
    if text.len() > KEY_BYTES_MAX {
        return Err(TargetError::Unacceptable(format!("the public key is longer than {KEY_BYTES_MAX} bytes")));
    }
    PublicKey::from_openssh(text.trim())
        .map_err(|_| TargetError::Unacceptable("the public key is not in OpenSSH format".to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn parameters_of_a_command_are_single_harmless_words_or_refused() {
        for good in ["web", "web-1.example", "a:b@c", "7"] {
            assert_eq!(placed("p", Some(&Value::Text(good.to_owned()))).unwrap(), good);
        }
        let long = "a".repeat(PLACED_BYTES_MAX + 1);
        for bad in ["", "a b", "a;id", "$(id)", "`id`", "a|b", "a\nb", "'", "-rf", "../x", "a/b", "*", "a..b", "é", long.as_str()]
        {
            assert!(placed("p", Some(&Value::Text(bad.to_owned()))).is_err(), "{bad}");
        }
        assert!(placed("p", Some(&Value::Long(-1))).is_err());
        assert!(placed("p", None).is_err());
    }

    #[test]
    fn networks_are_addresses_with_at_least_one_bit() {
        for (text, ok) in [("10.0.0.0/8", true), ("::1", true), ("0.0.0.0/0", false), ("10.0.0.0/33", false), ("host", false)] {
            assert_eq!(is_network(text), ok, "{text}");
        }
    }
}

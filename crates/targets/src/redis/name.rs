//! The name of a user: `jit_`, the grant's id, and when its time is over. Redis keeps nothing beside a user's name, so the
//! name carries what anybody needs to end it without asking us.

use domain::GrantId;
use std::fmt;
use std::str::FromStr;

/// A user of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) grant: GrantId,
    /// Seconds since the epoch.
    pub(super) ends_at: i64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("jit_")?;
        f.write_str(&self.grant.digits())?;
        write!(f, "_{}", self.ends_at)
    }
}

impl FromStr for Name {
    type Err = ();

    /// Only the one spelling that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (grant, ends_at) = text.strip_prefix("jit_").and_then(|rest| rest.split_once('_')).ok_or(())?;
        let name = Self { grant: GrantId::from_digits(grant).ok_or(())?, ends_at: ends_at.parse().map_err(|_| ())? };
        if name.to_string() == text && name.ends_at > 0 { Ok(name) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling_and_nothing_else_is_one() {
        let good = "jit_000102030405060708090a0b0c0d0e0f_1700000000";
        assert_eq!(good.parse::<Name>().map(|name| name.to_string()).as_deref(), Ok(good));
        for bad in [
            "default",
            "jit_",
            "jit_000102030405060708090a0b0c0d0e0f",
            "jit_000102030405060708090a0b0c0d0e0f_-1",
            "jit_000102030405060708090a0b0c0d0e0f_+1",
            "jit_000102030405060708090a0b0c0d0e0f_01",
            "jit_000102030405060708090a0b0c0d0e0f_1 on",
            "jit_000102030405060708090A0B0C0D0E0F_1",
            "JIT_000102030405060708090a0b0c0d0e0f_1",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}

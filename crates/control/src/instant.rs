//! Moments on the wire: RFC 3339 in UTC, fractions of a second if there are any. Owns the two directions of that form;
//! reads no clock.

use domain::Timestamp;

/// The moment as RFC 3339 text; `null`-like text never occurs because every moment that Writ records is in range.
pub(crate) fn to_text(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The moment that an RFC 3339 text names; a bare date means its first instant in UTC.
pub(crate) fn from_text(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_millis(at.as_millisecond()));
    }
    let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10)?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(at.timestamp().as_millisecond()))
}

/// The last moment that a text names: the same, but a bare date means its last instant in UTC.
pub(crate) fn end_of_text(text: &str) -> Option<Timestamp> {
    const DAY_MILLIS: i64 = 86_400_000;
    let from = from_text(text)?;
    let is_date = text.parse::<jiff::Timestamp>().is_err();
    Some(if is_date { Timestamp::from_millis(from.millis().saturating_add(DAY_MILLIS - 1)) } else { from })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_moment_survives_the_wire() {
        let at = from_text("2026-11-22T10:00:00.250Z").unwrap();
        assert_eq!(to_text(at), "2026-11-22T10:00:00.25Z");
        assert_eq!(from_text(&to_text(at)), Some(at));
        assert_eq!(from_text("2026-11-22T11:00:00+01:00"), from_text("2026-11-22T10:00:00Z"));
        assert_eq!(to_text(from_text("2026-11-22").unwrap()), "2026-11-22T00:00:00Z");
        assert_eq!(to_text(end_of_text("2026-11-22").unwrap()), "2026-11-22T23:59:59.999Z");
        assert_eq!(end_of_text("2026-11-22T10:00:00Z"), from_text("2026-11-22T10:00:00Z"));
        for text in ["", "yesterday", "2026-13-01", "2026-11-22T10:00:00", "20261122", "2026-11-22x"] {
            assert_eq!((from_text(text), end_of_text(text)), (None, None), "{text}");
        }
    }
}

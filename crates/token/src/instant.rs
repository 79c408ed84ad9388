//! The one unit of time in tokens: whole seconds since 1970-01-01T00:00:00Z (RFC 7519 `NumericDate`).
//! It never reads a clock; callers bring `now`.

/// A point in time, in whole seconds since the Unix epoch, leap seconds ignored (RFC 7519 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// This instant moved by `secs` (may be negative); saturates instead of overflowing.
    #[must_use]
    pub const fn plus(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// Seconds from `earlier` to this instant; negative if `earlier` is later. Saturates.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

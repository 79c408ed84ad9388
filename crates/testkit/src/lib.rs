//! Fakes, manual clock, seeded entropy, check_log. Tests only.

//! Patterns: expressions written down to be looked for.

/// What to look for, and how many inputs it leaves open.
pub struct Pattern;

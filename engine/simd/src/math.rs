//! Elementary functions on vectors.

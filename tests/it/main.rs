//! Tests of the whole program and of the repository itself, in one crate so that they link once.

mod tidy;

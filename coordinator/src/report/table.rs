//! The tables of the report at the end of a run.

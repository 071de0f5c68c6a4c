//! The private listener: metrics, probes and the running configuration.

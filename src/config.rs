//! YAML to checked settings.

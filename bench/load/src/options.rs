//! `--name value` arguments.

use std::collections::HashMap;

/// The arguments of one command.
#[derive(Debug, Default)]
pub struct Options(HashMap<String, Vec<String>>);

impl Options {
    /// Reads `--name value` pairs.
    ///
    /// # Errors
    /// On anything else, and on a name that `known` lacks.
    pub fn parse(mut args: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").filter(|name| known.contains(name));
            let name = name.ok_or_else(|| format!("{arg}: not an option here; there are --{}", known.join(" --")))?;
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            options.0.entry(name.into()).or_default().push(value);
        }
        Ok(options)
    }

    /// The last value of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str)
    }

    /// The last value of an option that has to be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn needed(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("--{name} is needed"))
    }

    /// All values of an option.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value of an option as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number<N: std::str::FromStr>(&self, name: &str, default: N) -> Result<N, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name} {text}: not a number")),
        }
    }
}

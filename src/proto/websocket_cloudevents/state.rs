//! `ce-connectionState`: a text that a backend gives a connection to carry, and gets back with each later event.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The field, in both directions.
pub const CONNECTION_STATE: HeaderName = HeaderName::from_static("ce-connectionstate");
/// The longest state, in bytes: it goes with every request, and servers bound their heads.
pub const STATE_BYTES_MAX: usize = 8 * 1024;

/// A connection's state: nothing at first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State(Option<HeaderValue>);

/// Why a state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Over [`STATE_BYTES_MAX`].
    #[error("its ce-connectionState of {0} bytes is over the {STATE_BYTES_MAX} allowed; keep less in it")]
    TooLong(usize),
    /// More than one field.
    #[error("it has {0} ce-connectionState fields; send one")]
    Repeated(usize),
}

impl State {
    /// Takes in an answer's field: without one the state stays, an empty one deletes it.
    ///
    /// # Errors
    /// When it is too long or there are several; then the state stays.
    pub fn learn(&mut self, answer: &HeaderMap) -> Result<(), StateError> {
        let mut values = answer.get_all(CONNECTION_STATE).iter();
        let Some(value) = values.next() else { return Ok(()) };
        let more = values.count();
        if more > 0 {
            return Err(StateError::Repeated(1 + more));
        }
        if value.len() > STATE_BYTES_MAX {
            return Err(StateError::TooLong(value.len()));
        }
        self.0 = (!value.is_empty()).then(|| value.clone());
        Ok(())
    }

    /// Adds the field to a request.
    pub fn tell(&self, fields: &mut HeaderMap) {
        if let Some(value) = &self.0 {
            fields.insert(CONNECTION_STATE, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_str(value).expect("a value"));
        values.map(|value| (CONNECTION_STATE, value)).collect()
    }

    fn told(state: &State) -> Option<String> {
        let mut fields = HeaderMap::new();
        state.tell(&mut fields);
        fields.get(CONNECTION_STATE).map(|value| value.to_str().expect("text").to_owned())
    }

    #[test]
    fn the_last_state_comes_back_until_it_is_emptied() {
        let mut state = State::default();
        assert_eq!(told(&state), None);
        assert_eq!(state.learn(&answer(&["eyJhIjoxfQ=="])), Ok(()));
        assert_eq!(state.learn(&answer(&[])), Ok(()));
        assert_eq!(told(&state).as_deref(), Some("eyJhIjoxfQ=="));
        assert_eq!(state.learn(&answer(&["b"])), Ok(()));
        assert_eq!(told(&state).as_deref(), Some("b"));
        assert_eq!(state.learn(&answer(&["c", "d"])), Err(StateError::Repeated(2)));
        let long = "x".repeat(STATE_BYTES_MAX + 1);
        assert_eq!(state.learn(&answer(&[&long])), Err(StateError::TooLong(STATE_BYTES_MAX + 1)));
        assert_eq!(told(&state).as_deref(), Some("b"));
        assert_eq!(state.learn(&answer(&[&long[1..]])), Ok(()));
        assert_eq!(told(&state).map(|state| state.len()), Some(STATE_BYTES_MAX));
        assert_eq!(state.learn(&answer(&[""])), Ok(()));
        assert_eq!(told(&state), None);
    }
}

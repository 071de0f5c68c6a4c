//! The names of the routes that a shard has sessions of, so that each session keeps a number instead of a name.

use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// The routes of a shard's sessions; one without sessions is forgotten.
#[derive(Debug, Default)]
pub(in crate::hub::shard) struct Routes {
    known: Slab<(Arc<str>, usize)>,
    by_name: HashMap<Arc<str>, u16>,
}

impl Routes {
    /// The number of a route that has one session more; `None` where there are too many to number.
    pub(in crate::hub::shard) fn join(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.by_name.get(name) {
            self.known[usize::from(*number)].1 += 1;
            return Some(*number);
        }
        let number = u16::try_from(self.known.vacant_key()).ok()?;
        let name: Arc<str> = name.into();
        self.known.insert((Arc::clone(&name), 1));
        self.by_name.insert(name, number);
        Some(number)
    }

    /// The route has one session less.
    pub(in crate::hub::shard) fn leave(&mut self, number: u16) {
        let number = usize::from(number);
        let Some((_, sessions)) = self.known.get_mut(number) else { return };
        *sessions -= 1;
        if *sessions == 0 {
            let (name, _) = self.known.remove(number);
            self.by_name.remove(&name);
        }
    }

    /// The number of a route that has sessions.
    pub(in crate::hub::shard) fn find(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_known_while_it_has_sessions() {
        let mut routes = Routes::default();
        let a = routes.join("a").expect("a number");
        assert_eq!(routes.join("a"), Some(a));
        let b = routes.join("b").expect("a number");
        assert!(a != b && routes.find("b") == Some(b));
        routes.leave(a);
        assert_eq!(routes.find("a"), Some(a));
        routes.leave(a);
        assert_eq!((routes.find("a"), routes.find("b")), (None, Some(b)));
        assert_eq!(routes.join("c"), Some(a), "numbers are used again");
    }
}

//! Patterns of methods: `package.Service/Method`, `package.Service/*` and `*`; the most specific
//! one counts.

use std::{collections::HashMap, fmt, str::FromStr};

use foldhash::fast::RandomState;

/// Which methods something is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `*`: all of which no other pattern says more.
    All,
    /// `package.Service/*`: all methods of a service.
    Service(String),
    /// `package.Service/Method`.
    Method(String),
}

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected package.Service/Method, package.Service/* or *")]
pub struct NoPattern;

impl Pattern {
    /// The next one that is less specific; none after `*`.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Method(name) => {
                let service = name.split_once('/').map_or(name.as_str(), |(it, _)| it);
                Some(Self::Service(service.to_owned()))
            }
            Self::Service(_) => Some(Self::All),
            Self::All => None,
        }
    }

    /// The pattern and all that are less specific, the most specific first.
    pub fn lineage(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), Self::parent)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Service(name) => write!(f, "{name}/*"),
            Self::Method(name) => f.write_str(name),
        }
    }
}

impl FromStr for Pattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        if text == "*" {
            return Ok(Self::All);
        }
        let (service, method) = text.split_once('/').ok_or(NoPattern)?;
        let name = |text: &str, more: &str| {
            let known = |it: char| it.is_ascii_alphanumeric() || it == '_' || more.contains(it);
            !text.is_empty() && text.chars().all(known)
        };
        match method {
            "*" if name(service, ".") => Ok(Self::Service(service.to_owned())),
            method if name(service, ".") && name(method, "") => Ok(Self::Method(text.to_owned())),
            _ => Err(NoPattern),
        }
    }
}

/// One value for each of some patterns.
#[derive(Debug, Clone, PartialEq)]
pub struct Patterns<T> {
    methods: HashMap<String, T, RandomState>,
    services: HashMap<String, T, RandomState>,
    all: Option<T>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self {
            methods: HashMap::default(),
            services: HashMap::default(),
            all: None,
        }
    }
}

impl<T> Patterns<T> {
    /// Sets the value of `pattern`, in place of the one before.
    pub fn insert(&mut self, pattern: Pattern, value: T) {
        match pattern {
            Pattern::All => self.all = Some(value),
            Pattern::Service(name) => drop(self.services.insert(name, value)),
            Pattern::Method(name) => drop(self.methods.insert(name, value)),
        }
    }

    /// The value of this very pattern.
    #[must_use]
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        match pattern {
            Pattern::All => self.all.as_ref(),
            Pattern::Service(name) => self.services.get(name),
            Pattern::Method(name) => self.methods.get(name),
        }
    }

    /// The value of the most specific pattern for `method`, `package.Service/Method`.
    #[must_use]
    pub fn find(&self, method: &str) -> Option<&T> {
        self.find_where(method, |_| true)
    }

    /// The same among those whose value `fits`.
    #[must_use]
    pub fn find_where(&self, method: &str, fits: impl Fn(&T) -> bool) -> Option<&T> {
        let service = || {
            let (service, _) = method.split_once('/')?;
            self.services.get(service).filter(|value| fits(value))
        };
        let exact = self.methods.get(method).filter(|value| fits(value));
        let exact = exact.or_else(service);
        exact.or_else(|| self.all.as_ref().filter(|value| fits(value)))
    }

    /// Every value with its pattern, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Pattern, &T)> {
        let methods = self.methods.iter();
        let methods = methods.map(|(name, value)| (Pattern::Method(name.clone()), value));
        let services = self.services.iter();
        let services = services.map(|(name, value)| (Pattern::Service(name.clone()), value));
        let all = self.all.iter().map(|value| (Pattern::All, value));
        methods.chain(services).chain(all)
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let each = self.methods.values().chain(self.services.values());
        each.chain(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the most specific pattern counts, and the others where it is not there.
    /// Method: take them away one after the other.
    #[test]
    fn the_most_specific_counts() {
        let all = ["a.B/C", "a.B/*", "*"].map(|text| text.parse::<Pattern>().unwrap());
        assert_eq!(all.to_vec(), all[0].clone().lineage().collect::<Vec<_>>());
        for first in 0..all.len() {
            let mut patterns = Patterns::default();
            for pattern in &all[first..] {
                patterns.insert(pattern.clone(), pattern.to_string());
            }
            let expected = all[first].to_string();
            assert_eq!(Some(&expected), patterns.find("a.B/C"), "from {first}");
            assert_eq!(Some(&expected), patterns.get(&all[first]));
            assert_eq!(all.len() - first, patterns.values().count());
            let mut each = patterns.iter();
            assert!(each.all(|(pattern, value)| pattern.to_string() == *value));
        }
        assert_eq!(None, Patterns::<()>::default().find("a.B/C"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a", "a/", "/M", "a/b/c", "*/M", "a.B/C D", "**"] {
            assert_eq!(Err(NoPattern), text.parse::<Pattern>(), "{text}");
        }
    }
}

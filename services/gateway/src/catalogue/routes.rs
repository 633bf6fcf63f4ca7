//! From a method of HTTP and a path to whoever answers it.
//!
//! Templates are kept as a tree of their segments. Where several match, the one that is more
//! particular from the left counts: text before `*`, `*` before `**`; with a verb before without.

use std::{collections::BTreeMap, sync::Arc};

use http::Method;

use super::{
    percent,
    rule::{Binding, Verb},
    template::Segment,
};

/// Every binding there is.
#[derive(Debug, Default)]
pub struct Routes {
    root: Node,
}

/// What is behind one place in a path.
#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    single: Option<Box<Node>>,
    /// Those that end here, by their verb.
    here: BTreeMap<Option<String>, Ends>,
    /// Those whose `**` is here, by their verb.
    rest: BTreeMap<Option<String>, Ends>,
}

/// Bindings of one template's shape; they differ in the method of HTTP.
type Ends = Vec<Arc<Binding>>;

/// What was found for a path.
#[derive(Debug)]
pub enum Found {
    /// A binding.
    Binding(Arc<Binding>),
    /// Bindings of other methods of HTTP alone: these.
    OtherMethods(Vec<String>),
    /// None.
    Nothing,
}

/// A path, cut.
#[derive(Debug)]
pub struct Path<'a> {
    /// What is between slashes, as it came.
    pub segments: Vec<&'a str>,
}

impl<'a> Path<'a> {
    /// Cuts `path`.
    #[must_use]
    pub fn new(path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        Self {
            segments: path.split('/').collect(),
        }
    }

    /// The same without `verb`, which it ends in.
    #[must_use]
    pub fn without(mut self, verb: Option<&str>) -> Self {
        if let (Some(verb), Some(last)) = (verb, self.segments.last_mut()) {
            *last = &last[..last.len() - verb.len() - 1];
        }
        self
    }

    /// What may be a verb.
    fn verb(&self) -> Option<&'a str> {
        let (_, verb) = self.segments.last()?.rsplit_once(':')?;
        Some(verb)
    }
}

impl Routes {
    /// Adds `binding`.
    ///
    /// # Errors
    ///
    /// The binding that answers for the same method and paths.
    pub fn add(&mut self, binding: Arc<Binding>) -> Result<(), Arc<Binding>> {
        let template = &binding.template;
        let mut node = &mut self.root;
        let mut is_rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => {
                    node = node.literals.entry(text.clone()).or_default();
                }
                Segment::Single => node = node.single.get_or_insert_default(),
                Segment::Rest => is_rest = true,
            }
        }
        let ends = if is_rest {
            &mut node.rest
        } else {
            &mut node.here
        };
        let ends = ends.entry(template.verb.clone()).or_default();
        if let Some(other) = ends.iter().find(|it| it.verb == binding.verb) {
            return Err(Arc::clone(other));
        }
        ends.push(binding);
        Ok(())
    }

    /// Who answers `method` of `path`.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let cut = Path::new(path);
        if let Some(verb) = cut.verb() {
            let found = self.search(method, &Path::new(path).without(Some(verb)), Some(verb));
            if !matches!(found, Found::Nothing) {
                return found;
            }
        }
        self.search(method, &cut, None)
    }

    fn search(&self, method: &Method, path: &Path<'_>, verb: Option<&str>) -> Found {
        let decoded = path.segments.iter().map(|it| percent::decode(it).ok());
        let decoded: Vec<_> = decoded.collect();
        let mut search = Search {
            method,
            verb: verb.map(str::to_owned),
            segments: &decoded,
            others: Vec::new(),
        };
        match search.at(&self.root, 0) {
            Some(binding) => Found::Binding(binding),
            None if search.others.is_empty() => Found::Nothing,
            None => {
                search.others.sort();
                search.others.dedup();
                Found::OtherMethods(search.others)
            }
        }
    }
}

/// A search. It comes to each node at most once: the depth of a node is the place in the path.
struct Search<'a> {
    method: &'a Method,
    verb: Option<String>,
    /// The path, decoded; none for what cannot be.
    segments: &'a [Option<String>],
    /// Methods of HTTP that would have been answered.
    others: Vec<String>,
}

impl Search<'_> {
    fn at(&mut self, node: &Node, place: usize) -> Option<Arc<Binding>> {
        let segments = self.segments;
        if let Some(segment) = segments.get(place) {
            let text = segment.as_ref();
            if let Some(next) = text.and_then(|text| node.literals.get(text))
                && let Some(found) = self.at(next, place + 1)
            {
                return Some(found);
            }
            // One that cannot be decoded is there all the same: whoever wants it is told of it.
            let is_empty = segment.as_ref().is_some_and(String::is_empty);
            if let Some(next) = node.single.as_ref().filter(|_| !is_empty)
                && let Some(found) = self.at(next, place + 1)
            {
                return Some(found);
            }
        } else if let Some(found) = self.among(&node.here) {
            return Some(found);
        }
        self.among(&node.rest)
    }

    fn among(&mut self, ends: &BTreeMap<Option<String>, Ends>) -> Option<Arc<Binding>> {
        let ends = ends.get(&self.verb)?;
        let own = Verb::Method(self.method.clone());
        let exact = ends.iter().find(|it| it.verb == own);
        let found = exact.or_else(|| ends.iter().find(|it| it.verb == Verb::Any));
        // What reads may be asked for its head alone.
        let found = found.or_else(|| {
            let get = Verb::Method(Method::GET);
            let head = *self.method == Method::HEAD;
            ends.iter().find(|it| head && it.verb == get)
        });
        if found.is_none() {
            for end in ends {
                self.others.push(end.verb.to_string());
                if end.verb == Verb::Method(Method::GET) {
                    self.others.push(Method::HEAD.to_string());
                }
            }
        }
        found.cloned()
    }
}

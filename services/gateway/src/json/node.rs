//! JSON as it was sent: read strictly, each key once.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number; a fraction or a very large one is inexact.
    Number(Number),
    /// Text.
    String(String),
    /// An array.
    List(Vec<Node>),
    /// An object, its keys in order and each there once.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, in words.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        if let Err(error) = std::str::from_utf8(text) {
            return Err(format!("byte {} is not UTF-8", error.valid_up_to()));
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

/// Keys up to which looking through all of them is faster than sorting them.
const FEW: usize = 16;

impl<'de> Visitor<'de> for Any {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value);
        number
            .map(Node::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut object: Vec<(String, Node)> = Vec::new();
        while let Some((key, value)) = entries.next_entry::<String, Node>()? {
            if object.len() < FEW && object.iter().any(|(it, _)| *it == key) {
                return Err(twice(&key));
            }
            object.push((key, value));
        }
        if object.len() >= FEW {
            let mut keys: Vec<_> = object.iter().map(|(key, _)| key.as_str()).collect();
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(twice(pair[0]));
            }
        }
        Ok(Node::Object(object))
    }
}

fn twice<E: de::Error>(key: &str) -> E {
    E::custom(format!("the key \"{key}\" is there twice"))
}

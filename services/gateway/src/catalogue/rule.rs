//! Mappings of methods to HTTP, checked against the messages they are for.

use std::{fmt, sync::Arc};

use http::Method as HttpMethod;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{describe::Method, template::Template};

/// The option that holds a mapping.
const OPTION: &str = "google.api.http";

/// Ways to one method in HTTP, its own included; a contract that has more is no contract.
const BINDINGS_MAX: usize = 64;

/// A method of HTTP that a binding answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// This one.
    Method(HttpMethod),
    /// Every one.
    Any,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => f.write_str(method.as_str()),
            Self::Any => f.write_str("*"),
        }
    }
}

/// What the body of a request is.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing: there is none.
    None,
    /// The message, but for what is in the path.
    All,
    /// One field of it.
    Field(FieldDescriptor),
}

/// A field of a field and so on, from the request down.
pub type FieldPath = Vec<FieldDescriptor>;

/// One way to one method.
#[derive(Debug)]
pub struct Binding {
    /// The method of HTTP.
    pub verb: Verb,
    /// The paths.
    pub template: Template,
    /// The path as spans name it.
    pub route: Arc<str>,
    /// The field of each variable of the template.
    pub variables: Vec<FieldPath>,
    /// What the body of the request is.
    pub body: Body,
    /// The field that the body of the answer is; none: all of it.
    pub answer: Option<FieldDescriptor>,
    /// What is called.
    pub method: Arc<Method>,
}

/// Whether `binding`s are to be had of a method, and what is wrong with those that are not.
#[derive(Debug, Default)]
pub struct Bindings {
    /// Those that are sound.
    pub sound: Vec<Arc<Binding>>,
    /// What is wrong with others, each naming its method.
    pub faults: Vec<String>,
}

impl Bindings {
    /// Adds what the option of `method` says.
    pub fn read(&mut self, method: &Arc<Method>) {
        let options = method.descriptor.options();
        let pool = method.descriptor.parent_pool();
        let Some(option) = pool.get_extension_by_name(OPTION) else {
            return;
        };
        if !options.has_extension(&option) {
            return;
        }
        let rule = options.get_extension(&option);
        let Some(rule) = rule.as_message() else {
            return self.fault(method, "the option google.api.http is not a message");
        };
        self.rule(method, rule);
        let additional = field(rule, "additional_bindings");
        let additional = additional.as_ref().and_then(Value::as_list);
        let additional = additional.unwrap_or_default();
        for rule in additional.iter().take(BINDINGS_MAX) {
            let Some(rule) = rule.as_message() else {
                continue;
            };
            let nested = field(rule, "additional_bindings");
            if nested.is_some_and(|it| it.as_list().is_some_and(|it| !it.is_empty())) {
                self.fault(method, "additional_bindings have additional_bindings");
            }
            self.rule(method, rule);
        }
        if additional.len() > BINDINGS_MAX {
            let text = format!("more than {BINDINGS_MAX} additional_bindings");
            self.fault(method, text);
        }
    }

    fn rule(&mut self, method: &Arc<Method>, rule: &DynamicMessage) {
        match binding(method, rule) {
            Ok(binding) => self.sound.push(Arc::new(binding)),
            Err(fault) => self.fault(method, fault),
        }
    }

    fn fault(&mut self, method: &Method, fault: impl fmt::Display) {
        let name = method.descriptor.full_name();
        self.faults.push(format!("{name}: {fault}"));
    }
}

/// The field `name` of a message whose shape nobody vouches for.
fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    let value = message.get_field_by_name(name)?;
    Some(value.into_owned())
}

fn text(message: &DynamicMessage, name: &str) -> String {
    let value = field(message, name);
    let text = value.as_ref().and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn binding(method: &Arc<Method>, rule: &DynamicMessage) -> Result<Binding, String> {
    let (verb, path) = pattern(rule)?;
    let template = Template::parse(&path).map_err(|error| error.to_string())?;
    let descriptor = &method.descriptor;
    let input = descriptor.input();
    let variables: Vec<_> = template
        .variables
        .iter()
        .map(|variable| {
            let fields = resolve(&input, &variable.field)
                .map_err(|what| format!("the variable {{{}}}: {what}", variable.field))?;
            check_variable(&fields).map_err(|what| format!("{{{}}} {what}", variable.field))?;
            Ok(fields)
        })
        .collect::<Result<_, String>>()?;
    let body = match text(rule, "body").as_str() {
        "" => Body::None,
        "*" => Body::All,
        name => Body::Field(own_field(&input, name, "body")?),
    };
    if let Body::Field(field) = &body
        && variables.iter().any(|it| it[..] == [field.clone()])
    {
        return Err(format!(
            "the field {} is in the path and the body",
            field.name()
        ));
    }
    if verb == Verb::Method(HttpMethod::GET) && !matches!(body, Body::None) {
        return Err("a GET has no body".to_owned());
    }
    if descriptor.is_client_streaming() && !(variables.is_empty() && matches!(body, Body::All)) {
        let what =
            "its requests are a stream, which wants `body: \"*\"` and a path without variables";
        return Err(what.to_owned());
    }
    let answer = match text(rule, "response_body").as_str() {
        "" => None,
        name => Some(own_field(&descriptor.output(), name, "response_body")?),
    };
    Ok(Binding {
        route: template.text.as_str().into(),
        verb,
        template,
        variables,
        body,
        answer,
        method: Arc::clone(method),
    })
}

fn pattern(rule: &DynamicMessage) -> Result<(Verb, String), String> {
    let named = [
        ("get", HttpMethod::GET),
        ("put", HttpMethod::PUT),
        ("post", HttpMethod::POST),
        ("delete", HttpMethod::DELETE),
        ("patch", HttpMethod::PATCH),
    ];
    for (name, method) in named {
        let path = text(rule, name);
        if !path.is_empty() {
            return Ok((Verb::Method(method), path));
        }
    }
    let custom = field(rule, "custom").filter(|_| rule.has_field_by_name("custom"));
    let custom = custom.as_ref().and_then(Value::as_message);
    let custom = custom.ok_or("the rule has no path")?;
    let kind = text(custom, "kind");
    let verb = if kind == "*" {
        Verb::Any
    } else {
        let method = HttpMethod::from_bytes(kind.as_bytes());
        Verb::Method(method.map_err(|_| format!("`{kind}` is no method of HTTP"))?)
    };
    Ok((verb, text(custom, "path")))
}

fn own_field(
    message: &MessageDescriptor,
    name: &str,
    place: &str,
) -> Result<FieldDescriptor, String> {
    let found = message.get_field_by_name(name);
    found.ok_or_else(|| format!("{place}: {} has no field {name}", message.full_name()))
}

/// The fields of a path of names, as contracts write them; JSON names are taken for them.
///
/// # Errors
///
/// Which name is none.
pub fn resolve(message: &MessageDescriptor, path: &str) -> Result<FieldPath, String> {
    let mut fields = FieldPath::new();
    let mut within = Some(message.clone());
    for name in path.split('.') {
        let Some(message) = within else {
            return Err(format!(
                "`{name}` would be inside of a value that has no fields"
            ));
        };
        let found = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name))
            .ok_or_else(|| format!("{} has no field `{name}`", message.full_name()))?;
        within = match found.kind() {
            Kind::Message(inner) if !found.is_list() && !found.is_map() => Some(inner),
            _ => None,
        };
        fields.push(found);
    }
    Ok(fields)
}

fn check_variable(fields: &[FieldDescriptor]) -> Result<(), &'static str> {
    let Some(last) = fields.last() else {
        return Err("names no field");
    };
    if last.is_list() || last.is_map() {
        return Err("is repeated, and a path has one value of it");
    }
    match last.kind() {
        Kind::Message(message) if !crate::json::is_text(&message) => {
            Err("is a message that no single text stands for")
        }
        _ => Ok(()),
    }
}

//! From `buf.validate` options to `impl Validate`.
//!
//! Each rule becomes a comparison in Rust; nothing is interpreted at run time but regular
//! expressions. What cannot become one is a fault of the build, never passed over.

mod collection;
mod field;
mod number;
mod options;
mod pattern;
mod site;
mod text;
mod time;

use std::{cell::RefCell, collections::HashSet, path::Path};

use proc_macro2::TokenStream;
use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor, OneofDescriptor};
use quote::{format_ident, quote};

pub(crate) use self::options::line;
use self::{options::MessageRules, site::Site};
use crate::idents;

/// What the rules of all packages of one build have in common.
pub(crate) struct Rules<'a> {
    runtime: TokenStream,
    proto_dir: &'a Path,
    /// Full names of the messages that have rules, in themselves or in messages they hold.
    ruled: HashSet<String>,
    faults: RefCell<Vec<String>>,
}

impl<'a> Rules<'a> {
    /// For the files in `pool`, whose names are relative to `proto_dir`.
    pub(crate) fn new(pool: &DescriptorPool, proto_dir: &'a Path, runtime: TokenStream) -> Self {
        Self {
            runtime,
            proto_dir,
            ruled: ruled(pool),
            faults: RefCell::default(),
        }
    }

    /// Every rule that could not be honoured, a line each.
    pub(crate) fn into_faults(self) -> Vec<String> {
        self.faults.into_inner()
    }

    /// `impl Validate` for every message of `files`, which are of one package.
    pub(crate) fn implementations(&self, files: &[FileDescriptor]) -> TokenStream {
        let runtime = &self.runtime;
        let mut tokens = TokenStream::new();
        for message in messages(files) {
            let path = idents::message(&message);
            let body = self.body(&message);
            let violations = if body.is_empty() {
                format_ident!("_")
            } else {
                format_ident!("violations")
            };
            tokens.extend(quote! {
                impl #runtime::Validate for #path {
                    fn validate(&self, #violations: &mut #runtime::Violations) { #body }
                }
            });
        }
        tokens
    }

    fn body(&self, message: &MessageDescriptor) -> TokenStream {
        let rules = MessageRules::of(message, |rule, why| self.refuse_for(message, rule, why));
        let mut body = TokenStream::new();
        let mut seen = HashSet::new();
        for descriptor in message.fields() {
            let oneof = descriptor
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic());
            if let Some(oneof) = oneof {
                if seen.insert(oneof.full_name().to_owned()) {
                    body.extend(self.oneof(&oneof));
                }
            } else {
                body.extend(field::statement(self, &descriptor, &rules));
            }
        }
        body.extend(
            rules
                .oneofs
                .iter()
                .map(|set| self.at_most_one(message, set)),
        );
        body
    }

    /// A real oneof: the rules of the member that is set, and whether one must be.
    fn oneof(&self, oneof: &OneofDescriptor) -> TokenStream {
        let place = format_ident_of(&idents::snake(oneof.name()));
        let mut statements = TokenStream::new();
        let mut arms = TokenStream::new();
        for member in oneof.fields() {
            let variant = idents::variant(&member, oneof);
            let checks = field::member(self, &member);
            if checks.required {
                let broken = Site::new(self, &member).broken("required", "must be set");
                statements.extend(quote! {
                    if !matches!(&self.#place, Some(#variant(_))) { #broken }
                });
            }
            let inner = checks.inner;
            if !inner.is_empty() {
                arms.extend(quote! { Some(#variant(value)) => { #inner } });
            }
        }
        if !arms.is_empty() {
            statements.extend(quote! { match &self.#place { #arms _ => {} } });
        }
        if options::oneof_is_required(oneof, |rule, why| {
            self.refuse_for(oneof.parent_message(), rule, why);
        }) {
            let name = oneof.name();
            statements.extend(quote! {
                if self.#place.is_none() {
                    violations.add(#name, "required", "one of its fields must be set");
                }
            });
        }
        statements
    }

    /// A set of fields of which at most one may be set.
    fn at_most_one(&self, message: &MessageDescriptor, set: &options::FieldSet) -> TokenStream {
        let mut counted = TokenStream::new();
        for name in &set.fields {
            let Some(descriptor) = message.get_field_by_name(name) else {
                self.refuse_for(
                    message,
                    "message.oneof",
                    &format!("there is no field {name}"),
                );
                continue;
            };
            let is_set = field::is_set(&descriptor);
            counted.extend(quote! { + usize::from(#is_set) });
        }
        let names = set.fields.join(", ");
        let (condition, description) = if set.required {
            (
                quote!(set != 1),
                format!("exactly one of {names} must be set"),
            )
        } else {
            (
                quote!(set > 1),
                format!("at most one of {names} may be set"),
            )
        };
        quote! {{
            let set = 0_usize #counted;
            if #condition {
                violations.add("", "message.oneof", #description);
            }
        }}
    }

    fn refuse_for(&self, message: &MessageDescriptor, rule: &str, why: &str) {
        self.refuse(
            &message.parent_file(),
            message.path(),
            &format!("message {}", message.full_name()),
            rule,
            why,
        );
    }

    fn refuse(&self, file: &FileDescriptor, path: &[i32], what: &str, rule: &str, why: &str) {
        let place = self.proto_dir.join(file.name());
        let line = options::line(file, path).map_or_else(String::new, |line| format!(":{line}"));
        let place = place.display();
        let fault = format!("{place}{line}: {what}: rule {rule} {why}");
        self.faults.borrow_mut().push(fault);
    }
}

/// The rules in `files` that code which checks nothing would pass over, a line each.
pub(crate) fn unchecked(files: &[FileDescriptor], proto_dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for message in messages(files).iter().filter(|message| has_rules(message)) {
        let file = message.parent_file();
        let line = options::line(&file, message.path()).unwrap_or(1);
        let place = proto_dir.join(file.name());
        let (place, name) = (place.display(), message.full_name());
        lines.push(format!(
            "{place}:{line}: message {name} has rules, which plain code does not check"
        ));
    }
    lines
}

/// Every message of `files`, those inside others included, entries of maps excepted.
fn messages(files: &[FileDescriptor]) -> Vec<MessageDescriptor> {
    let mut found = Vec::new();
    let mut waiting: Vec<_> = files
        .iter()
        .flat_map(|file| file.messages().collect::<Vec<_>>())
        .collect();
    while let Some(message) = waiting.pop() {
        waiting.extend(message.child_messages());
        if !message.is_map_entry() {
            found.push(message);
        }
    }
    found.sort_by(|one, other| one.full_name().cmp(other.full_name()));
    found
}

fn has_rules(message: &MessageDescriptor) -> bool {
    options::is_set(&message.options(), options::MESSAGE)
        || message
            .fields()
            .any(|field| options::is_set(&field.options(), options::FIELD))
        || message
            .oneofs()
            .any(|oneof| options::is_set(&oneof.options(), options::ONEOF))
}

/// The messages that have rules, and those that hold such messages, at any depth.
fn ruled(pool: &DescriptorPool) -> HashSet<String> {
    let mut ruled: HashSet<String> = pool
        .all_messages()
        .filter(has_rules)
        .map(|message| message.full_name().to_owned())
        .collect();
    loop {
        let before = ruled.len();
        for message in pool.all_messages() {
            let holds = message.fields().any(|field| {
                matches!(field.kind(), Kind::Message(held) if ruled.contains(held.full_name()))
            });
            if holds {
                ruled.insert(message.full_name().to_owned());
            }
        }
        if ruled.len() == before {
            return ruled;
        }
    }
}

/// An identifier that may be a raw one.
fn format_ident_of(name: &str) -> TokenStream {
    name.parse().expect("identifiers are Rust")
}

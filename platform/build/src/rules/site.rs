//! Where a value is, for those who write checks of it: how a broken rule is told to the caller,
//! and a rule that cannot be honoured to the author.

use proc_macro2::TokenStream;
use prost_reflect::{FieldDescriptor, Value};
use quote::quote;

use super::{
    Rules,
    options::{NOT_HONOURED, TypedRules},
};

/// The place of a value that generated code knows as `value`, a reference.
pub(super) struct Site<'a> {
    pub(super) rules: &'a Rules<'a>,
    field: &'a FieldDescriptor,
    element: Element,
}

enum Element {
    /// The field itself.
    None,
    /// The item that generated code knows as number `index`.
    Item,
    /// The entry that generated code knows by its `key`.
    Entry,
}

impl<'a> Site<'a> {
    /// The field itself.
    pub(super) fn new(rules: &'a Rules<'a>, field: &'a FieldDescriptor) -> Self {
        Self {
            rules,
            field,
            element: Element::None,
        }
    }

    /// An item of the field.
    pub(super) fn item(&self) -> Self {
        Self {
            element: Element::Item,
            ..*self
        }
    }

    /// A key or value of an entry of the field.
    pub(super) fn entry(&self) -> Self {
        Self {
            element: Element::Entry,
            ..*self
        }
    }

    /// The path of the platform's module that checks come from.
    pub(super) fn check(&self) -> TokenStream {
        let runtime = &self.rules.runtime;
        quote!(#runtime::check)
    }

    /// A statement that reports the rule as broken.
    pub(super) fn broken(&self, rule: &str, description: &str) -> TokenStream {
        let field = self.field.name();
        match self.at() {
            None => quote!(violations.add(#field, #rule, #description);),
            Some(at) => quote!(violations.add_element(#field, &#at, #rule, #description);),
        }
    }

    /// A statement that reports the rule as broken unless `holds`.
    pub(super) fn unless(&self, holds: &TokenStream, rule: &str, text: &str) -> TokenStream {
        let broken = self.broken(rule, text);
        quote!(if !(#holds) { #broken })
    }

    /// A statement that checks the message that `value` is.
    pub(super) fn within(&self) -> TokenStream {
        let field = self.field.name();
        match self.at() {
            None => quote!(violations.within(#field, value);),
            Some(at) => quote!(violations.within_element(#field, #at, value);),
        }
    }

    fn at(&self) -> Option<TokenStream> {
        let runtime = &self.rules.runtime;
        match self.element {
            Element::None => None,
            Element::Item => Some(quote!(#runtime::At::Index(index))),
            Element::Entry => Some(quote!(#runtime::At::key(key))),
        }
    }

    /// Fails the build for `rule`.
    pub(super) fn refuse(&self, rule: &str, why: &str) {
        let (name, message) = (self.field.name(), self.field.parent_message());
        let what = format!("field {name} of {}", message.full_name());
        let file = self.field.parent_file();
        let path = self.field.path();
        self.rules.refuse(&file, path, &what, rule, why);
    }

    /// Fails the build for a rule of `rules` that nobody knows.
    pub(super) fn refuse_one(&self, rules: &TypedRules, rule: &str) {
        self.refuse(&format!("{}.{rule}", rules.name), NOT_HONOURED);
    }
}

/// `values` for people: `1, 2`.
pub(super) fn listed(values: &[Value], show: impl Fn(&Value) -> String) -> String {
    values.iter().map(show).collect::<Vec<_>>().join(", ")
}

//! From `buf.validate` options to `impl Validate`.

use proc_macro2::TokenStream;
use prost_reflect::{FileDescriptor, MessageDescriptor};
use quote::quote;

use crate::idents;

/// `impl Validate` for every message of `files`, which are of one package.
pub(crate) fn implementations(files: &[FileDescriptor], runtime: &TokenStream) -> TokenStream {
    let mut messages: Vec<MessageDescriptor> = files
        .iter()
        .flat_map(|file| file.messages().collect::<Vec<_>>())
        .collect();
    let mut tokens = TokenStream::new();
    while let Some(message) = messages.pop() {
        messages.extend(message.child_messages());
        if message.is_map_entry() {
            continue;
        }
        let path = idents::message(&message);
        tokens.extend(quote! {
            impl #runtime::Validate for #path {
                fn validate(&self, _: &mut #runtime::Violations) {}
            }
        });
    }
    tokens
}

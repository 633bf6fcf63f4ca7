//! Descriptor sets as they are put into programs: all options, comments, and no positions.

use std::collections::HashSet;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FileDescriptor, ReflectMessage as _};
use prost_types::{FileDescriptorProto, SourceCodeInfo};

/// The encoded `FileDescriptorSet` of `files` and all they import, imports first.
pub(crate) fn encode(files: &[FileDescriptor]) -> Vec<u8> {
    let mut ordered = Vec::new();
    let mut seen = HashSet::new();
    for file in files {
        visit(file, &mut seen, &mut ordered);
    }
    let mut set = Vec::new();
    for file in ordered {
        // Encoded by hand, since the typed set has no room for options that are extensions.
        let encoded = encode_file(&file);
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(encoded.len() as u64, &mut set);
        set.extend(encoded);
    }
    set
}

fn visit(file: &FileDescriptor, seen: &mut HashSet<String>, ordered: &mut Vec<FileDescriptor>) {
    if seen.insert(file.name().to_owned()) {
        for import in file.dependencies() {
            visit(&import, seen, ordered);
        }
        ordered.push(file.clone());
    }
}

fn encode_file(file: &FileDescriptor) -> Vec<u8> {
    let shape = FileDescriptorProto::default().descriptor();
    let mut message = DynamicMessage::decode(shape, file.encode_to_vec().as_slice())
        .expect("a file that was compiled can be decoded");
    message.clear_field_by_name("source_code_info");
    let mut encoded = message.encode_to_vec();
    if let Some(info) = &file.file_descriptor_proto().source_code_info {
        let comments = FileDescriptorProto {
            source_code_info: Some(comments_of(file, info)),
            ..Default::default()
        };
        // Two encodings in a row are the encoding of the merged message.
        encoded.extend(comments.encode_to_vec());
    }
    encoded
}

/// The comments of a contract; nobody at run time asks for positions, or for Google's prose.
fn comments_of(file: &FileDescriptor, info: &SourceCodeInfo) -> SourceCodeInfo {
    let ours =
        !file.package_name().starts_with("google.") && file.name() != crate::sources::VALIDATE;
    let location = info
        .location
        .iter()
        .filter(|at| ours && (at.leading_comments.is_some() || at.trailing_comments.is_some()))
        .cloned()
        .collect();
    SourceCodeInfo { location }
}

//! Contracts that cannot be compiled: what is said, and that it is a line for people.

use std::{fs, path::Path};

use tempfile::TempDir;

/// A folder with these files in it, and what compiling them says.
fn compiled(files: &[(&str, &str)], plain: bool) -> (TempDir, Result<(), gantry_build::Error>) {
    let folder = tempfile::tempdir().expect("there is room");
    for (name, content) in files {
        let path = folder.path().join("proto").join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("there is room");
        fs::write(path, content).expect("there is room");
    }
    let builder = gantry_build::configure()
        .proto_dir(folder.path().join("proto"))
        .out_dir(folder.path());
    let builder = if plain { builder.plain() } else { builder };
    let result = builder.compile();
    (folder, result)
}

/// The error of compiling `files`, as cargo shows it, with places relative to the folder.
fn fault(files: &[(&str, &str)], plain: bool) -> String {
    let (folder, result) = compiled(files, plain);
    let shown = format!("{:?}", result.expect_err("it cannot be compiled"));
    shown.replace(&format!("{}/proto/", folder.path().display()), "")
}

/// A contract with this field in its message, on line 6.
fn with_field(field: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage a.v1;\nimport \"buf/validate/validate.proto\";\n\
         import \"more.proto\";\nmessage M {{\n  {field}\n}}\nmessage N {{}}\nenum E {{ E_UNSPECIFIED = 0; }}\n"
    )
}

/// Imports and rules of one's own that some cases need.
const MORE: (&str, &str) = (
    "more.proto",
    r#"syntax = "proto2";
    package more;
    import public "google/protobuf/any.proto";
    import public "google/protobuf/field_mask.proto";
    import "buf/validate/validate.proto";
    extend buf.validate.Int32Rules { optional bool even = 1001; }"#,
);

/// Each field, written with `$` for the name of the option, is refused for its rule and reason.
fn check(cases: &[(&str, &str, &str)]) {
    for (field, rule, why) in cases {
        let contract = with_field(&field.replace('$', "(buf.validate.field)"));
        let said = fault(&[MORE, ("a/v1/a.proto", &contract)], false);
        let expected = format!("a/v1/a.proto:6: field f of a.v1.M: rule {rule} {why}");
        assert_eq!(said, expected, "{field}");
    }
}

/// Goal: a role that nobody would be asked for, or that no token carries, is refused where it is
/// declared.
/// Method: roles beside each access that wants no token, and words that are none.
#[test]
fn a_role_that_cannot_be_asked_for_is_refused() {
    let long = "r".repeat(65);
    let no_role = "is no role; expected 1 to 64 lower-case letters, digits and dashes";
    let no_token =
        |access: &str| format!("is asked of nobody beside {access}; expected ACCESS_TOKEN");
    for (access, role, why) in [
        ("ACCESS_PUBLIC", "staff", no_token("ACCESS_PUBLIC")),
        ("ACCESS_INTERNAL", "staff", no_token("ACCESS_INTERNAL")),
        ("ACCESS_TOKEN", "", no_role.to_owned()),
        ("ACCESS_TOKEN", "Staff", no_role.to_owned()),
        ("ACCESS_TOKEN", "night staff", no_role.to_owned()),
        ("ACCESS_UNSPECIFIED", &long, no_role.to_owned()),
    ] {
        let contract = format!(
            "syntax = \"proto3\";\npackage a.v1;\nimport \"gantry/access/v1/access.proto\";\n\
             message M {{}}\nservice S {{\n  rpc R(M) returns (M) {{\n\
             option (gantry.access.v1.access) = {access};\n\
             option (gantry.access.v1.role) = \"{role}\";\n}}\n}}\n"
        );
        for plain in [false, true] {
            let said = fault(&[("a/v1/a.proto", &contract)], plain);
            let expected = format!("a/v1/a.proto:6: method a.v1.S.R: role `{role}` {why}");
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn a_rule_that_cannot_be_honoured_is_refused_by_name() {
    let why = "is not one that gantry-build honours";
    let header = "string f = 1 [$.string.well_known_regex = KNOWN_REGEX_HTTP_HEADER_NAME];";
    let key = "map<string, int32> f = 1 [$.map.keys.string.uri_ref = true];";
    check(&[
        ("int32 f = 1 [$.cel = {id: \"x\"}];", "cel", why),
        (
            "int32 f = 1 [$.cel_expression = \"x\"];",
            "cel_expression",
            why,
        ),
        (
            "int32 f = 1 [$.int32.(more.even) = true];",
            "int32.(more.even)",
            why,
        ),
        (
            "string f = 1 [$.string.uri_ref = true];",
            "string.uri_ref",
            why,
        ),
        (
            "string f = 1 [$.string.strict = false];",
            "string.strict",
            why,
        ),
        (header, "string.well_known_regex", why),
        (
            "bytes f = 1 [$.bytes.pattern = \"a\"];",
            "bytes.pattern",
            why,
        ),
        (
            "repeated N f = 1 [$.repeated.unique = true];",
            "repeated.unique (of messages)",
            why,
        ),
        (
            "repeated string f = 1 [$.repeated.items.cel = {}];",
            "repeated.items.cel",
            why,
        ),
        (key, "string.uri_ref", why),
        (
            "oneof o { string f = 1 [$.string.uri_ref = true]; }",
            "string.uri_ref",
            why,
        ),
    ]);
}

#[test]
fn a_rule_of_another_type_is_refused() {
    let fits =
        |expected: &str| format!("does not fit the type, for which there are {expected} rules");
    check(&[
        (
            "google.protobuf.Any f = 1 [$.any.in = \"a\"];",
            "any",
            &fits("no typed"),
        ),
        (
            "google.protobuf.FieldMask f = 1 [$.field_mask.in = \"a\"];",
            "field_mask",
            &fits("no typed"),
        ),
        (
            "int32 f = 1 [$.string.min_len = 1];",
            "string",
            &fits("int32"),
        ),
        ("int32 f = 1 [$.uint32.gt = 1];", "uint32", &fits("int32")),
        (
            "repeated string f = 1 [$.string.min_len = 1];",
            "string",
            &fits("repeated"),
        ),
        (
            "map<string, int32> f = 1 [$.repeated.min_items = 1];",
            "repeated",
            &fits("map"),
        ),
        ("E f = 1 [$.int32.gt = 1];", "int32", &fits("enum")),
        (
            "N f = 1 [$.string.min_len = 1];",
            "string",
            &fits("no typed"),
        ),
    ]);
}

#[test]
fn a_pattern_that_cannot_be_run_is_refused() {
    let operator = "has an operator inside brackets; escape it";
    check(&[
        (
            "string f = 1 [$.string.pattern = \"a(\"];",
            "string.pattern",
            "is no regular expression: unclosed group",
        ),
        (
            "string f = 1 [$.string.pattern = \"[a&&b]\"];",
            "string.pattern",
            operator,
        ),
    ]);
}

#[test]
fn rules_of_messages_and_oneofs_are_refused_by_name_too() {
    let cases = [
        (
            "option (buf.validate.message).cel = {};",
            "message.cel is not one that gantry-build honours",
        ),
        (
            "option (buf.validate.message).oneof = {fields: [\"x\"]};",
            "message.oneof there is no field x",
        ),
    ];
    for (option, said) in cases {
        let contract = with_field(option);
        let expected = format!("a/v1/a.proto:5: message a.v1.M: rule {said}");
        assert_eq!(fault(&[MORE, ("a/v1/a.proto", &contract)], false), expected);
    }
}

#[test]
fn every_fault_of_the_rules_is_told_at_once() {
    let contract = with_field(
        "string f = 1 [(buf.validate.field).string.uri_ref = true];\n\
         int32 g = 2 [(buf.validate.field) = {cel: {}, string: {min_len: 1}}];",
    );
    let said = fault(&[MORE, ("a/v1/a.proto", &contract)], false);
    let lines: Vec<_> = said.lines().collect();
    let starts = [
        "a/v1/a.proto:6: field f",
        "a/v1/a.proto:7: field g",
        "a/v1/a.proto:7: field g",
    ];
    assert_eq!(lines.len(), starts.len(), "{said}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

/// Goal: a rule is never passed over; the code of a plain crate checks none.
#[test]
fn plain_code_refuses_rules() {
    let contract = with_field("string f = 1 [(buf.validate.field).string.min_len = 1];");
    let said = fault(&[MORE, ("a/v1/a.proto", &contract)], true);
    assert_eq!(
        said,
        "a/v1/a.proto:5: message a.v1.M has rules, which plain code does not check"
    );
}

#[test]
fn faults_of_the_language_are_told_with_their_place() {
    let cases = [
        (
            "syntax = \"proto3\";\npackage a.v1;\nmessage M {\n  string f = ;\n}\n",
            "a/v1/a.proto:4:14: expected an integer, but found ';'",
        ),
        (
            "syntax = \"proto3\";\npackage a.v1;\nmessage M {\n  Missing f = 1;\n}\n",
            "a/v1/a.proto:4:3: name 'Missing' is not defined",
        ),
        (
            "syntax = \"proto3\";\npackage a.v1;\nimport \"b.proto\";\n",
            "a/v1/a.proto:3:1: import 'b.proto' not found",
        ),
        (
            "syntax = \"proto3\";\npackage a.v1;\nimport \"buf/validate/validate.proto\";\nmessage M {\n  int32 f = 1 [(buf.validate.field).int32.even = true];\n}\n",
            "a/v1/a.proto:5:16: option field '(buf.validate.field).int32.even' is not defined",
        ),
    ];
    for (contract, expected) in cases {
        assert_eq!(fault(&[("a/v1/a.proto", contract)], false), expected);
    }
}

#[test]
fn files_that_cannot_be_written_are_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("there is room");
    fs::create_dir(folder.path().join("proto")).expect("there is room");
    let error = gantry_build::configure()
        .proto_dir(folder.path().join("proto"))
        .out_dir(Path::new("/nowhere"))
        .compile()
        .expect_err("there is no such folder");
    assert_eq!(
        format!("{error:?}"),
        "write /nowhere/contracts.rs: No such file or directory (os error 2)"
    );
}

#[test]
fn a_package_that_has_no_files_yet_is_an_empty_module() {
    let folder = tempfile::tempdir().expect("there is room");
    fs::create_dir(folder.path().join("proto")).expect("there is room");
    gantry_build::configure()
        .proto_dir(folder.path().join("proto"))
        .package("shop")
        .out_dir(folder.path())
        .compile()
        .expect("nothing is wrong");
    let includes = fs::read_to_string(folder.path().join("contracts.rs")).expect("it was written");
    assert!(includes.contains("pub mod shop {\n}"), "{includes}");
}

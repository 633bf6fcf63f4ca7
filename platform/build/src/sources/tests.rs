//! Which files are compiled, and which of them cargo must watch.

use super::*;

const CONTRACT: &str = "syntax = \"proto3\"; package PACKAGE;";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("there is room");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("there is room");
        fs::write(path, content).expect("there is room");
    }
    folder
}

#[test]
fn a_package_is_its_folder_and_those_below() {
    let folder = folder(&[
        (
            "shop/orders/v1/orders.proto",
            &CONTRACT.replace("PACKAGE", "shop.orders.v1"),
        ),
        (
            "shop/accounts/v1/accounts.proto",
            &CONTRACT.replace("PACKAGE", "shop.accounts.v1"),
        ),
        (
            "shopping/v1/list.proto",
            &CONTRACT.replace("PACKAGE", "shopping.v1"),
        ),
        ("shop/README.md", "no contract"),
    ]);
    let compiled = |packages: &[String]| {
        compile(folder.path(), packages)
            .expect("all is well")
            .generated
    };
    let shop = [
        "shop/accounts/v1/accounts.proto",
        "shop/orders/v1/orders.proto",
    ];
    assert_eq!(compiled(&["shop".to_owned()]), shop);
    assert_eq!(compiled(&["shop.orders".to_owned()]), [shop[1]]);
    assert_eq!(compiled(&[]), [shop[0], shop[1], "shopping/v1/list.proto"]);
}

/// Goal: code exists for what is used and for no more, and cargo watches all that was read.
/// Method: a file that imports two others, and uses a type of one.
#[test]
fn imported_files_are_watched_and_generated_where_their_types_are_used() {
    let folder = folder(&[
        (
            "a/v1/a.proto",
            "syntax = \"proto3\"; package a.v1; import \"used.proto\"; import \"unused.proto\";\
             import \"google/protobuf/empty.proto\"; import \"buf/validate/validate.proto\";\
             service S { rpc R(google.protobuf.Empty) returns (used.Answer); }",
        ),
        (
            "used.proto",
            "syntax = \"proto3\"; package used; message Answer {}",
        ),
        (
            "unused.proto",
            "syntax = \"proto3\"; package unused; message Answer {}",
        ),
    ]);
    let packages = ["a".to_owned()];
    let sources = compile(folder.path(), &packages).expect("all is well");
    assert_eq!(sources.generated, ["a/v1/a.proto", "used.proto"]);
    let mut read = sources.read;
    read.sort();
    let expected = ["a/v1/a.proto", "unused.proto", "used.proto"];
    assert_eq!(read, expected.map(|name| folder.path().join(name)));
}

/// Goal: cargo does not run the script at every build while a folder is not there yet.
#[test]
fn what_is_watched_exists() {
    let folder = folder(&[("shop/v1/shop.proto", "")]);
    let watch = |package: &str| watched(folder.path(), &[package.to_owned()]);
    assert_eq!(watch("shop"), [folder.path().join("shop")]);
    assert_eq!(watch("shop.v2"), [folder.path().join("shop")]);
    assert_eq!(watch("bank"), [folder.path()]);
    assert_eq!(watched(folder.path(), &[]), [folder.path()]);
}

/// Goal: a project that carries none of the files can use all kinds of options.
/// Method: a contract with a rule, an access and a mapping, alone in its folder; what its option says.
#[test]
fn options_come_with_the_crate() {
    let folder = folder(&[(
        "a/v1/a.proto",
        "syntax = \"proto3\"; package a.v1;\
         import \"google/api/annotations.proto\"; import \"buf/validate/validate.proto\";\
         import \"gantry/access/v1/access.proto\";\
         message M { string id = 1 [(buf.validate.field).string.uuid = true]; }\
         service S { rpc R(M) returns (M) { option (gantry.access.v1.access) = ACCESS_PUBLIC;\
         option (google.api.http).get = \"/v1/{id}\"; } }",
    )]);
    let sources = compile(folder.path(), &[]).expect("all is well");
    assert_eq!(sources.generated, ["a/v1/a.proto"]);
    let service = sources.pool.get_service_by_name("a.v1.S").expect("there");
    let method = service.methods().next().expect("it has one");
    let option = sources.pool.get_extension_by_name("google.api.http");
    let options = method.options();
    let rule = options.get_extension(&option.expect("imported"));
    let rule = rule.as_message().expect("a rule");
    let get = rule.get_field_by_name("get").expect("a field of a rule");
    assert_eq!(get.as_str(), Some("/v1/{id}"));
    let accesses = crate::access::read(&sources.pool);
    assert_eq!(
        accesses.get("a.v1.S.R"),
        Some(&crate::access::Said {
            access: crate::access::Access::Public,
            role: None,
        })
    );
}

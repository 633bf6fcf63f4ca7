//! Rules that are sound, broken, or in each other's way.

use std::sync::Arc;

use gantry::contract::Access;
use gateway::catalogue::{
    describe::Service,
    routes::{Found, Routes},
};
use http::Method;
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// A contract, and the options that it imports.
struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let source = match name {
            "a.proto" => &self.0,
            "google/api/http.proto" => include_str!("../../../../proto/google/api/http.proto"),
            "google/api/annotations.proto" => {
                include_str!("../../../../proto/google/api/annotations.proto")
            }
            "gantry/access/v1/access.proto" => {
                include_str!("../../../../proto/gantry/access/v1/access.proto")
            }
            _ => return Err(protox::Error::file_not_found(name)),
        };
        File::from_source(name, source)
    }
}

/// The files of a service `a.S` whose methods have these rules.
fn files(rules: &[&str]) -> Vec<Vec<u8>> {
    let methods = rules.iter().enumerate().map(|(number, rule)| {
        format!(
            "rpc M{number}(Request) returns (Answer) {{ option (google.api.http) = {{{rule}}}; }}"
        )
    });
    let text = format!(
        "syntax = \"proto3\"; package a; import \"google/api/annotations.proto\";
         message Inner {{ string name = 1; repeated string names = 2; }}
         message Request {{
           string id = 1; Inner inner = 2; repeated Inner inners = 3; map<string, string> map = 4;
         }}
         message Answer {{ Inner inner = 1; }}
         service S {{ rpc Plain(Request) returns (Answer); {}
           rpc Up(stream Request) returns (Answer) {{
             option (google.api.http) = {{post: \"/up/{{id}}\" body: \"*\"}};
           }}
         }}",
        methods.collect::<String>()
    );
    compiled(text)
}

/// `text` and what it imports.
fn compiled(text: String) -> Vec<Vec<u8>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(text));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("a.proto").unwrap();
    let pool: DescriptorPool = compiler.descriptor_pool();
    pool.files().map(|file| file.encode_to_vec()).collect()
}

/// Goal: who may call a method is read as its contract says, and one that contradicts itself lets
/// nobody in by accident.
/// Method: each access with and without a role, as compilers other than ours let pass; a role that no
/// token can carry.
#[test]
fn contradictions_of_access_are_read_strictly() {
    let cases = [
        ("", Access::Token, None),
        ("access = ACCESS_PUBLIC", Access::Public, None),
        ("access = ACCESS_TOKEN", Access::Token, None),
        ("role = \"staff\"", Access::Token, Some("staff")),
        (
            "access = ACCESS_PUBLIC role = \"staff\"",
            Access::Token,
            Some("staff"),
        ),
        (
            "access = ACCESS_INTERNAL role = \"staff\"",
            Access::Internal,
            Some("staff"),
        ),
        (
            "access = ACCESS_PUBLIC role = \"\"",
            Access::Token,
            Some(""),
        ),
    ];
    for (said, access, role) in cases {
        let options = said.replace("access =", "option (gantry.access.v1.access) =");
        let options = options.replace("role =", "; option (gantry.access.v1.role) =");
        let end = if said.is_empty() { "" } else { ";" };
        let text = format!(
            "syntax = \"proto3\"; package a; import \"gantry/access/v1/access.proto\";
             message M {{}} service S {{ rpc R(M) returns (M) {{ {options}{end} }} }}"
        );
        let service = Service::read("a.S", compiled(text)).unwrap();
        let method = &service.methods["R"];
        assert_eq!(
            (access, role),
            (method.access, method.role.as_deref()),
            "{said}"
        );
    }
}

/// Goal: a rule that cannot be honoured is left out with the reason, and nothing beside it.
/// Method: rules of each kind beside a sound one.
#[test]
fn a_broken_rule_is_left_out_with_the_reason() {
    let cases = [
        (r#"body: "*""#, "the rule has no path"),
        (r#"get: "v1""#, "the path `v1` does not begin with `/`"),
        (
            r#"get: "/{nope}""#,
            "the variable {nope}: a.Request has no field `nope`",
        ),
        (r#"get: "/{inner.nope}""#, "a.Inner has no field `nope`"),
        (
            r#"get: "/{id.x}""#,
            "would be inside of a value that has no fields",
        ),
        (
            r#"get: "/{inner}""#,
            "{inner} is a message that no single text stands for",
        ),
        (r#"get: "/{inner.names}""#, "{inner.names} is repeated"),
        (
            r#"get: "/{inners.name}""#,
            "would be inside of a value that has no fields",
        ),
        (r#"get: "/{map}""#, "{map} is repeated"),
        (
            r#"post: "/x" body: "nope""#,
            "body: a.Request has no field nope",
        ),
        (
            r#"post: "/x" body: "inner.name""#,
            "body: a.Request has no field inner.name",
        ),
        (
            r#"post: "/{id}" body: "id""#,
            "the field id is in the path and the body",
        ),
        (r#"get: "/x" body: "*""#, "a GET has no body"),
        (
            r#"get: "/x" response_body: "nope""#,
            "response_body: a.Answer has no field nope",
        ),
        (
            r#"custom: {kind: "A B" path: "/x"}"#,
            "`A B` is no method of HTTP",
        ),
        (
            r#"custom: {kind: "A"}"#,
            "the path `` does not begin with `/`",
        ),
        (
            r#"get: "/x" additional_bindings: {get: "/y" additional_bindings: {get: "/z"}}"#,
            "additional_bindings have additional_bindings",
        ),
    ];
    for (rule, reason) in cases {
        let service = Service::read("a.S", files(&[rule, r#"get: "/sound""#])).unwrap();
        let [fault, up] = &service.bindings.faults[..] else {
            panic!("{rule}: {:?}", service.bindings.faults);
        };
        assert!(
            fault.starts_with("a.S.M0: ") && fault.contains(reason),
            "{rule}: {fault}"
        );
        assert!(up.contains("its requests are a stream"), "{up}");
        let mut sound = service.bindings.sound.iter();
        assert!(sound.any(|it| it.template.text == "/sound"), "{rule}");
        assert_eq!(4, service.methods.len());
    }
}

/// Goal: of two bindings for one method and shape of paths, one counts; the more particular of two
/// that match comes first.
/// Method: rules that meet; which method is found.
#[test]
fn one_of_two_counts() {
    let rules = [
        r#"get: "/a/{id}""#,
        r#"get: "/a/b""#,
        r#"get: "/a/{id=**}""#,
        r#"get: "/a/{id}:do""#,
        r#"get: "/{inner.name}/b""#,
        r#"post: "/a/c""#,
        r#"custom: {kind: "*" path: "/a/d"}"#,
        r#"get: "/a/d""#,
        // The same as the first.
        r#"get: "/a/{inner.name}""#,
    ];
    let service = Service::read("a.S", files(&rules)).unwrap();
    let mut routes = Routes::default();
    let mut refused = Vec::new();
    for binding in &service.bindings.sound {
        if let Err(other) = routes.add(Arc::clone(binding)) {
            refused.push((
                binding.method.descriptor.name().to_owned(),
                other.method.descriptor.name().to_owned(),
            ));
        }
    }
    assert_eq!(vec![("M8".to_owned(), "M0".to_owned())], refused);
    let cases = [
        (Method::GET, "/a/x", "M0"),
        (Method::GET, "/a/b", "M1"),
        (Method::GET, "/a/%62", "M1"),
        (Method::GET, "/a/x/y", "M2"),
        (Method::GET, "/a", "M2"),
        (Method::GET, "/a/x:do", "M3"),
        (Method::GET, "/a/x:else", "M0"),
        (Method::GET, "/x/b", "M4"),
        // Another method of HTTP at the more particular path is in nobody's way.
        (Method::GET, "/a/c", "M0"),
        (Method::POST, "/a/c", "M5"),
        (Method::GET, "/a/d", "M7"),
        (Method::PUT, "/a/d", "M6"),
    ];
    for (method, path, expected) in cases {
        match routes.find(&method, path) {
            Found::Binding(binding) => {
                assert_eq!(expected, binding.method.descriptor.name(), "{path}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    assert!(matches!(
        routes.find(&Method::POST, "/a/x:do"),
        Found::OtherMethods(_)
    ));
    assert!(matches!(routes.find(&Method::GET, "/x/c"), Found::Nothing));
}

/// Goal: files that do not belong together, or describe something else, are told of and harm nobody.
/// Method: bytes, a missing import, another service.
#[test]
fn files_that_are_no_description_are_refused() {
    let broken = |files, reason: &str| {
        let error = Service::read("a.S", files).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    broken(vec![vec![0xff]], "do not belong together");
    broken(Vec::new(), "do not describe it");
    let mut some = files(&[]);
    some.remove(0);
    broken(some, "do not belong together");
    let error = Service::read("a.Other", files(&[])).unwrap_err();
    assert!(error.contains("do not describe it"), "{error}");
}

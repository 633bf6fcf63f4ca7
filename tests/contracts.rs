//! What `buf lint` does not ask of our contracts: words on everything, what a second try does, who may
//! call what, and how they are spelled in HTTP.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MessageDescriptor};

/// The contracts that are ours to write; others are restated as they are.
const OURS: [&str; 2] = ["shop", "gantry"];

/// The files in `folder` and below.
fn protos(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            protos(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
}

/// Every file of ours, compiled.
fn ours() -> Vec<FileDescriptor> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut files = Vec::new();
    for folder in OURS {
        protos(&root.join(folder), &mut files);
    }
    let mut compiler = protox::Compiler::new([&root]).expect("the folder can be read");
    compiler
        .include_source_info(true)
        .open_files(&files)
        .expect("the contracts compile");
    let pool: DescriptorPool = compiler.descriptor_pool();
    let ours = pool.files().filter(|file| {
        let package = file.package_name();
        OURS.iter()
            .any(|ours| package.starts_with(&format!("{ours}.")))
    });
    ours.collect()
}

/// Collects the things of a file that have nothing said about them.
struct Wordless<'a> {
    file: &'a FileDescriptor,
    found: Vec<String>,
}

impl Wordless<'_> {
    fn check(&mut self, path: &[i32], name: &str) {
        let info = self.file.file_descriptor_proto().source_code_info.as_ref();
        let said = info
            .expect("comments were asked for")
            .location
            .iter()
            .any(|at| at.path == path && !at.leading_comments().trim().is_empty());
        if !said {
            self.found.push(format!("{}: {name}", self.file.name()));
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        if message.is_map_entry() {
            return;
        }
        self.check(message.path(), message.full_name());
        for field in message.fields() {
            self.check(field.path(), field.full_name());
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            self.check(oneof.path(), oneof.full_name());
        }
        for child in message.child_messages() {
            self.message(&child);
        }
        for child in message.child_enums() {
            self.enumeration(&child);
        }
    }

    fn enumeration(&mut self, enumeration: &EnumDescriptor) {
        self.check(enumeration.path(), enumeration.full_name());
        for value in enumeration.values() {
            self.check(value.path(), value.full_name());
        }
    }
}

#[test]
fn everything_in_a_contract_has_a_comment() {
    let mut wordless = Vec::new();
    for file in ours() {
        let mut checked = Wordless {
            file: &file,
            found: Vec::new(),
        };
        for message in file.messages() {
            checked.message(&message);
        }
        for enumeration in file.enums() {
            checked.enumeration(&enumeration);
        }
        for service in file.services() {
            checked.check(service.path(), service.full_name());
            for method in service.methods() {
                checked.check(method.path(), method.full_name());
            }
        }
        wordless.extend(checked.found);
    }
    assert!(
        wordless.is_empty(),
        "without a comment:\n{}",
        wordless.join("\n")
    );
}

#[test]
fn every_rpc_says_what_a_second_try_would_do() {
    let mut methods = 0;
    let mut silent = Vec::new();
    for service in ours()
        .iter()
        .flat_map(|file| file.services().collect::<Vec<_>>())
    {
        for method in service.methods() {
            methods += 1;
            let options = method.method_descriptor_proto().options.clone();
            // Saying that it is not known is saying something; leaving it out is not.
            if options
                .and_then(|options| options.idempotency_level)
                .is_none()
            {
                silent.push(method.full_name().to_owned());
            }
        }
    }
    assert!(methods > 0, "there are contracts");
    assert!(
        silent.is_empty(),
        "without idempotency_level:\n{}",
        silent.join("\n")
    );
}

/// Goal: whoever writes a method of the shop decides who may call it, before anybody can; what the
/// services ask each other is nobody else's.
/// Method: the options as the programs carry them: every method that has a way in HTTP says one of
/// the three, and the lists of those that want no token.
#[test]
fn every_method_of_the_shop_says_who_may_call_it() {
    use gantry::contract::Access;
    let mut silent = Vec::new();
    for file in ours() {
        for method in file
            .services()
            .flat_map(|it| it.methods().collect::<Vec<_>>())
        {
            let pool = method.parent_pool();
            let said = |name: &str| {
                let option = pool.get_extension_by_name(name);
                option.is_some_and(|it| method.options().has_extension(&it))
            };
            if said("google.api.http") && !said("gantry.access.v1.access") {
                silent.push(method.full_name().to_owned());
            }
        }
    }
    assert!(
        silent.is_empty(),
        "without gantry.access.v1.access:\n{}",
        silent.join("\n")
    );
    let methods = [
        &shop_proto::accounts::v1::ACCOUNTS_SERVICE_METHODS[..],
        &shop_proto::catalog::v1::CATALOG_SERVICE_METHODS,
        &shop_proto::orders::v1::ORDERS_SERVICE_METHODS,
        &shop_proto::payments::v1::PAYMENTS_SERVICE_METHODS,
        &shop_proto::notifications::v1::NOTIFICATIONS_SERVICE_METHODS,
    ];
    let with = |access| {
        let methods = methods.iter().flat_map(|it| it.iter());
        let found = methods.filter(|it| it.access == access);
        found
            .map(gantry::contract::Method::name)
            .collect::<Vec<_>>()
    };
    let public = ["Register", "Login", "GetJwks", "ListProducts", "GetProduct"];
    assert_eq!(public.as_slice(), with(Access::Public));
    let between = [
        "SetRoles",
        "SeedProducts",
        "Reserve",
        "Confirm",
        "Release",
        "Charge",
        "Refund",
        "GetPayment",
    ];
    assert_eq!(between.as_slice(), with(Access::Internal));
    let roles = methods.iter().flat_map(|it| it.iter());
    let roles = roles.filter_map(|it| Some((it.name(), it.role?)));
    let expected = [
        ("ImportProducts", "staff"),
        ("UpdateStock", "staff"),
        ("ListStockLevels", "staff"),
        ("GetSalesSummary", "staff"),
    ];
    assert_eq!(expected.as_slice(), roles.collect::<Vec<_>>());
}

/// Goal: the shop is found in HTTP where people and scripts look for it; what is for services alone
/// is not there.
/// Method: the options as the programs carry them, against a list.
#[test]
fn the_shop_is_spelled_in_http_as_agreed() {
    let mut found = Vec::new();
    for descriptors in [
        shop_proto::accounts::v1::DESCRIPTORS,
        shop_proto::catalog::v1::DESCRIPTORS,
        shop_proto::notifications::v1::DESCRIPTORS,
        shop_proto::orders::v1::DESCRIPTORS,
        shop_proto::payments::v1::DESCRIPTORS,
    ] {
        let pool = DescriptorPool::decode(descriptors).expect("the descriptors are whole");
        let option = pool.get_extension_by_name("google.api.http");
        for method in pool
            .services()
            .flat_map(|it| it.methods().collect::<Vec<_>>())
        {
            let options = method.options();
            let Some(option) = option.as_ref().filter(|it| options.has_extension(it)) else {
                continue;
            };
            let rule = options.get_extension(option);
            let rule = rule.as_message().expect("a rule");
            let text = |name: &str| {
                let value = rule.get_field_by_name(name).expect("a field of a rule");
                value.as_str().unwrap_or_default().to_owned()
            };
            let verb = ["get", "post"].into_iter().find(|it| !text(it).is_empty());
            let verb = verb.expect("one of the two");
            found.push(format!(
                "{} {verb} {} {}",
                method.name(),
                text(verb),
                text("body")
            ));
        }
    }
    let agreed = [
        "Register post /v1/accounts:register *",
        "Login post /v1/accounts:login *",
        "ListProducts get /v1/products ",
        "ImportProducts post /v1/products:import *",
        "ListStockLevels get /v1/stock ",
        "GetSalesSummary get /v1/sales ",
        "ListNotifications get /v1/notifications ",
        "WatchNotifications get /v1/notifications:watch ",
        "PlaceOrder post /v1/orders *",
        "GetOrder get /v1/orders/{order_id} ",
        "ListOrders get /v1/orders ",
        "CancelOrder post /v1/orders/{order_id}:cancel *",
        "WatchOrder get /v1/orders/{order_id}:watch ",
    ];
    assert_eq!(agreed.as_slice(), found);
}

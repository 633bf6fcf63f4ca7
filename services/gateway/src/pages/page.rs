//! Everything there is to call, for people.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::comments::Comments;
use crate::catalogue::{Api, describe::Service};

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Services</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}h2{margin:2.5rem 0 .5rem}h3{margin:1.5rem 0 .25rem}\
code{font-family:ui-monospace,monospace;font-size:.9em}.way{display:block;background:#f3f4f6;\
padding:.25rem .5rem;border-radius:.25rem;margin:.25rem 0}table{border-collapse:collapse;\
width:100%}td{border-top:1px solid #ddd;padding:.25rem .5rem;vertical-align:top}\
p{white-space:pre-line;margin:.25rem 0}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}.way{background:#262a31}\
td{border-color:#3a3f47}a{color:#8ab4f8}}</style></head><body><h1>Services</h1>\
<p>All that is registered. By gRPC and gRPC-Web at the name of a method, by Connect where both \
sides are one message, and by JSON at the paths below. \
<a href=\"/openapi.json\">openapi.json</a> says the same to programs.</p>";

/// The page.
pub(super) fn write(api: &Api) -> String {
    let mut page = Page {
        html: HEAD.to_owned(),
        comments: Comments::default(),
    };
    for (name, service) in &api.services {
        page.service(name, service);
    }
    if api.services.is_empty() {
        page.html.push_str("<p>Nobody is.</p>");
    }
    page.html.push_str("</body></html>\n");
    page.html
}

struct Page {
    html: String,
    comments: Comments,
}

/// Text that nothing in it is taken for HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

impl Page {
    fn write(&mut self, html: std::fmt::Arguments<'_>) {
        self.html.push_str(&html.to_string());
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.write(format_args!("<p>{}</p>", escaped(text)));
        }
    }

    fn service(&mut self, name: &str, service: &Service) {
        self.write(format_args!("<h2>{}</h2>", escaped(name)));
        let mut methods: Vec<_> = service.methods.values().map(|it| &it.descriptor).collect();
        // As they are in the contract.
        methods.sort_by_key(|it| it.path().to_vec());
        if let Some(first) = methods.first() {
            let described = first.parent_service();
            let text = self.comments.of(&described.parent_file(), described.path());
            self.text(&text);
        }
        for method in methods {
            self.method(service, method);
        }
    }

    fn method(&mut self, service: &Service, method: &MethodDescriptor) {
        let stream = |is: bool| if is { "stream of " } else { "" };
        let (asks, answers) = (
            stream(method.is_client_streaming()),
            stream(method.is_server_streaming()),
        );
        self.write(format_args!("<h3>{}</h3>", escaped(method.name())));
        let bindings = service.bindings.sound.iter();
        for binding in bindings.filter(|it| it.method.descriptor == *method) {
            let way = escaped(&format!("{} {}", binding.verb, binding.template));
            self.write(format_args!("<code class=\"way\">{way}</code>"));
        }
        let text = self.comments.of(&method.parent_file(), method.path());
        self.text(&text);
        self.message("Takes", asks, &method.input());
        self.message("Gives", answers, &method.output());
    }

    fn message(&mut self, what: &str, stream: &str, message: &MessageDescriptor) {
        let name = escaped(message.full_name());
        self.write(format_args!(
            "<details><summary>{what} {stream}<code>{name}</code></summary>"
        ));
        self.html.push_str("<table>");
        for field in message.fields() {
            let text = self.comments.of(&field.parent_file(), field.path());
            self.write(format_args!(
                "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td></tr>",
                escaped(field.json_name()),
                escaped(&kind(&field)),
                escaped(&text),
            ));
        }
        self.html.push_str("</table></details>");
    }
}

fn kind(field: &FieldDescriptor) -> String {
    if let (Kind::Message(entry), true) = (field.kind(), field.is_map()) {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!(
            "map of {} by {}",
            single(&value.kind()),
            single(&key.kind())
        );
    }
    let kind = single(&field.kind());
    if field.is_list() {
        format!("list of {kind}")
    } else {
        kind
    }
}

fn single(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_html() {
        let escaped = escaped("</p><a href='x' title=\"y\">&lt;");
        let expected = "&lt;/p&gt;&lt;a href=&#39;x&#39; title=&quot;y&quot;&gt;&amp;lt;";
        assert_eq!(expected, escaped);
    }
}

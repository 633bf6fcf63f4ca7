//! What can be set for this service.

use std::time::Duration;

use gantry::config::{self, Size};

config::section! {
    /// Settings of the gateway.
    pub struct Config {
        /// Requests that are not gRPC.
        pub http: section Http;
    }
}

config::section! {
    /// Requests that are not gRPC.
    pub struct Http {
        /// Largest body of a request, or line of one that is a stream.
        pub body_max: Size = Size::mib(4), in Size::kib(1)..=Size::mib(1_024), live;
        /// Bytes of bodies that are held for all requests together.
        pub body_bytes_max: Size = Size::mib(64), in Size::mib(1).., live;
        /// Longest a call with one answer may take, whatever its caller allows.
        pub timeout: Duration = Duration::from_secs(20),
            in Duration::from_millis(1)..=Duration::from_secs(29), live;
        /// Whose pages may ask, as browsers name them: `https://shop.example.com`, or `*` for
        /// everybody's. None unless said.
        pub origins: Vec<String> = Vec::new(), live;
        /// Whether `GET /` and `GET /openapi.json` tell what there is to ask.
        pub pages: bool = true, live;
    }
}

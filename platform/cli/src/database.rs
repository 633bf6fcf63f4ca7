//! The database of `gantry up --database URL`, in which each service has a schema of its own.

use gantry_store::Url;

use crate::failure::Failure;

/// The schema of a URL that names none.
const PUBLIC: &str = "public";

/// Where PostgreSQL is, if no service of ours is to keep files.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    url: Url,
    with_password: bool,
}

impl Database {
    /// As the option says.
    ///
    /// # Errors
    ///
    /// If a service would refuse it, or if there is no room in it for more than one of them.
    pub(crate) fn given(text: &str) -> Result<Self, Failure> {
        // Never repeated: it may hold a password.
        let fault = |why: String| Failure::usage(format!("--database: {why}"));
        let url: Url = text.parse().map_err(|error| fault(format!("{error}")))?;
        match url.schema() {
            None => Err(fault(
                "expected postgres://USER@HOST/DATABASE; files are where services have them \
                 without it"
                    .to_owned(),
            )),
            Some(PUBLIC) => Ok(Self {
                with_password: url.has_password(),
                url,
            }),
            Some(schema) => Err(fault(format!(
                "expected no ?schema={schema}: each service has one of its own name"
            ))),
        }
    }

    /// What `service` is told.
    ///
    /// # Errors
    ///
    /// If no schema can have its name.
    pub(crate) fn url_of(&self, service: &str) -> Result<String, Failure> {
        match self.url.with_schema(service) {
            Ok(Some(url)) => Ok(url.expose()),
            Ok(None) => Ok(self.url.expose()),
            Err(error) => Err(Failure::usage(format!("[services.{service}]: {error}"))),
        }
    }

    /// What is worth saying of it.
    pub(crate) fn remark(&self) -> Option<&'static str> {
        self.with_password.then_some(
            "every user of this machine can read the password in --database; \
             GANTRY_DATABASE__PASSWORD in the environment keeps it",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each service is told of a schema of its own, and what cannot be is refused without
    /// repeating a password.
    /// Method: a good URL and bad ones.
    #[test]
    fn each_service_has_a_schema() {
        let database = Database::given("postgres://me:pw@db/shop?sslmode=require").unwrap();
        let url = "postgres://me:pw@db/shop?schema=order-book&sslmode=require";
        assert_eq!(url, database.url_of("order-book").unwrap());
        assert!(database.remark().is_some());
        let quiet = Database::given("postgres://me@db/shop").unwrap();
        assert_eq!(None, quiet.remark());
        let long = "a".repeat(64);
        assert!(quiet.url_of(&long).is_err());
        for (bad, words) in [
            ("sqlite:a.db", "expected postgres://"),
            (
                "postgres://me:secret@db/shop?schema=orders",
                "no ?schema=orders",
            ),
            ("postgres://me:secret@db", "the database is missing"),
            ("mysql://me:secret@db/shop", "expected sqlite:PATH"),
        ] {
            let fault = Database::given(bad).unwrap_err().to_string();
            assert!(fault.contains(words), "{fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
    }
}

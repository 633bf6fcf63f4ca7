//! `gantry limits`: what bounds the calls of running instances, and how full it is.

use gantry_api::admin::v1::{
    Limiter, ListLimitersRequest, admin_service_client::AdminServiceClient, limiter::Kind,
};
use serde::Serialize;

use crate::{
    Outcome, args, ask, call,
    output::{self, Format},
};

/// A limit, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    kind: String,
    client: Option<String>,
    method: Option<String>,
    key: Option<String>,
    enforced: bool,
    used: f64,
    max: Option<f64>,
    refused: u64,
    would_refuse: u64,
    #[serde(skip)]
    of: Kind,
}

pub(crate) async fn run(args: args::Limits) -> Outcome {
    let reports = ask::running().await?;
    let answers = ask::each(&args.name, &reports, async |channel, row| {
        let mut admin = AdminServiceClient::new(channel);
        let listed = admin.list_limiters(ListLimitersRequest {}).await;
        let listed = listed.map_err(|status| call::failure(&status))?;
        let limiters = listed.into_inner().limiters.into_iter();
        let rows = limiters.map(|it| shown(&row.instance, it));
        Ok(rows.filter(|row| args.all || row.tells()).collect())
    });
    let answers = answers.await?;
    match args.output {
        Format::Json => output::json(&answers.rows),
        Format::Human if answers.rows.is_empty() => {
            answers.note("no limit holds anything or has refused anything; see `--all`");
        }
        Format::Human => output::line(&table(&answers.rows)),
    }
    answers.exit()
}

impl Row {
    /// Whether it holds something, or refused something.
    fn tells(&self) -> bool {
        self.used > 0.0 || self.refused > 0 || self.would_refuse > 0
    }
}

fn shown(instance: &str, limiter: Limiter) -> Row {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let kind = limiter.kind();
    Row {
        instance: instance.to_owned(),
        kind: kind.as_str_name().trim_start_matches("KIND_").to_owned(),
        client: given(limiter.client),
        method: given(limiter.method),
        key: given(limiter.key),
        enforced: limiter.enforced,
        used: limiter.used,
        max: limiter.max,
        refused: limiter.refused,
        would_refuse: limiter.would_refuse,
        of: kind,
    }
}

/// The limits for people.
fn table(rows: &[Row]) -> String {
    let heading = ["INSTANCE", "LIMIT", "OF", "USED", "MAX", "REFUSED"];
    let rows: Vec<_> = rows.iter().map(cells).collect();
    output::table(heading, &rows)
}

fn cells(row: &Row) -> [String; 6] {
    let parts = [&row.client, &row.method, &row.key];
    let of: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
    let of = match of.as_slice() {
        [] => "all".to_owned(),
        parts => parts.join(" "),
    };
    let max = row.max.map(|max| amount(row.of, max));
    let refused = if row.enforced {
        row.refused.to_string()
    } else {
        format!("{} (would)", row.would_refuse)
    };
    [
        row.instance.clone(),
        row.kind.to_lowercase().replace('_', " "),
        of,
        amount(row.of, row.used),
        max.unwrap_or_else(|| "-".to_owned()),
        refused,
    ]
}

/// An amount in its unit.
fn amount(kind: Kind, amount: f64) -> String {
    match kind {
        Kind::Lag => format!("{:.1} ms", amount * 1_000.0),
        Kind::Cpu | Kind::Memory | Kind::Shed => format!("{:.0} %", amount * 100.0),
        _ if amount.fract() == 0.0 => format!("{amount:.0}"),
        _ => format!("{amount:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: people see what a limit bounds, how full it is in its unit, and what it refused; those
    /// that hold nothing can be told.
    /// Method: one of each kind of unit.
    #[test]
    fn limits_are_a_table() {
        let limiter = |kind: Kind, used: f64, max: Option<f64>| Limiter {
            kind: kind.into(),
            enforced: true,
            used,
            max,
            ..Limiter::default()
        };
        let all = [
            limiter(Kind::Concurrency, 3.0, Some(10_000.0)),
            Limiter {
                method: "a.B/C".to_owned(),
                enforced: false,
                would_refuse: 7,
                ..limiter(Kind::Adaptive, 3.0, Some(20.0))
            },
            limiter(Kind::Lag, 0.000_4, Some(0.02)),
            Limiter {
                key: "SHEDDABLE".to_owned(),
                refused: 12,
                ..limiter(Kind::Shed, 0.3, Some(1.0))
            },
            Limiter {
                client: "payments".to_owned(),
                ..limiter(Kind::RetryTokens, 2.5, Some(5.0))
            },
            Limiter {
                client: "payments".to_owned(),
                method: "a.B/C".to_owned(),
                ..limiter(Kind::Throttle, 0.0, None)
            },
        ];
        let rows: Vec<_> = all.into_iter().map(|it| shown("orders-1", it)).collect();
        let expected = "\
INSTANCE  LIMIT         OF              USED    MAX      REFUSED
orders-1  concurrency   all             3       10000    0
orders-1  adaptive      a.B/C           3       20       7 (would)
orders-1  lag           all             0.4 ms  20.0 ms  0
orders-1  shed          SHEDDABLE       30 %    100 %    12
orders-1  retry tokens  payments        2.5     5        0
orders-1  throttle      payments a.B/C  0       -        0";
        assert_eq!(expected, table(&rows));
        let tell: Vec<_> = rows.iter().map(Row::tells).collect();
        assert_eq!([true, true, true, true, true, false], *tell);
    }
}

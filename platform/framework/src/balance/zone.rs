//! Who is near: an endpoint in the caller's zone is preferred, and one in another takes what would
//! be too much for those.

/// What an endpoint in `there` counts for to a process in `here`, with another zone worth
/// `other_percent`. Where either is not known, all are alike.
pub(super) fn factor(here: Option<&str>, there: Option<&str>, other_percent: u32) -> f32 {
    match (here, there) {
        (Some(here), Some(there)) if here != there => percent(other_percent),
        _ => 1.0,
    }
}

/// What its registry says that an endpoint counts for.
pub(super) fn weight(percent_of_ordinary: Option<u32>) -> f32 {
    percent(percent_of_ordinary.unwrap_or(100))
}

/// Never nothing: a cost is divided by it.
fn percent(percent: u32) -> f32 {
    let percent = u16::try_from(percent.clamp(1, 10_000)).unwrap_or(10_000);
    f32::from(percent) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: another zone counts for half, and nothing does where a zone is not known.
    /// Method: each pair of known and unknown.
    #[test]
    fn another_zone_counts_for_less() {
        let cases = [
            (Some("a"), Some("a"), 1.0),
            (Some("a"), Some("b"), 0.5),
            (Some("a"), None, 1.0),
            (None, Some("b"), 1.0),
            (None, None, 1.0),
        ];
        for (here, there, expected) in cases {
            let factor = factor(here, there, 50);
            assert!((factor - expected).abs() < 1e-6, "{here:?} {there:?}");
        }
    }

    /// Goal: no weight that a registry holds makes a cost endless or nothing.
    /// Method: none, the ordinary, and the ends.
    #[test]
    fn a_weight_is_bounded() {
        for (given, expected) in [
            (None, 1.0),
            (Some(50), 0.5),
            (Some(0), 0.01),
            (Some(u32::MAX), 100.0),
        ] {
            assert!((weight(given) - expected).abs() < 1e-6, "{given:?}");
        }
    }
}

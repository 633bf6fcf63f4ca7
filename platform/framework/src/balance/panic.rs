//! When so few endpoints are left that it is better to pass over what is held against the rest.

/// How many endpoints there are, and how many of them can take calls as far as is known: neither
/// ejected, nor with an open breaker, nor failing to connect or to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Census {
    pub(super) all: usize,
    pub(super) available: usize,
}

impl Census {
    pub(super) fn new(available: impl Iterator<Item = bool>) -> Self {
        available.fold(Self::default(), |census, available| Self {
            all: census.all + 1,
            available: census.available + usize::from(available),
        })
    }

    /// Whether less than `percent` of them are available. Never of one alone: panic is for the
    /// sake of the few that are left, and its breaker would mean nothing.
    pub(super) fn is_scarce(self, percent: u32) -> bool {
        let percent = usize::try_from(percent).unwrap_or(usize::MAX);
        self.all > 1 && self.available.saturating_mul(100) < percent.saturating_mul(self.all)
    }

    pub(super) fn unavailable(self) -> usize {
        self.all - self.available
    }
}

impl std::fmt::Display for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} endpoints are available",
            self.available, self.all
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: half of the endpoints are enough, less are not; one alone is never too few.
    /// Method: the numbers of the reference, and the ends.
    #[test]
    fn less_than_half_is_scarce() {
        let cases = [
            (10, 10, false),
            (10, 5, false),
            (10, 4, true),
            (3, 1, true),
            (2, 1, false),
            (2, 0, true),
            (1, 0, false),
            (0, 0, false),
        ];
        for (all, available, expected) in cases {
            let census = Census { all, available };
            assert_eq!(expected, census.is_scarce(50), "{census}");
            assert!(!census.is_scarce(0), "{census}");
        }
    }
}

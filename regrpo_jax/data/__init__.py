"""The bridge: records become token arrays with exact spans, packed rows and padded groups, fed by grain."""

"""What a statement may be made of: kinds of nodes, functions and types. What is not listed is refused.

Left out on purpose, though they only read: what makes a large value out of a small one (`repeat`, `lpad`, `printf`,
`range`, a cast to BIT), what reads files, settings, the server or its catalogs, what takes SQL or a relation as text,
what sleeps or counts up, and whatever takes a whole row.
"""

from collections.abc import Mapping

NODES = frozenset(
    "Select Union Except Intersect Subquery With CTE From Join Where Group Having Order Ordered Limit "
    "Offset Fetch Tuple Distinct Window WindowSpec Filter WithinGroup Qualify Table TableAlias Alias "
    "Column Identifier Star Literal Null Boolean Paren And Or Xor Not EQ NEQ NullSafeEQ NullSafeNEQ "
    "GT GTE LT LTE Is In Between Exists Any All Like ILike Glob Escape SimilarTo RegexpLike "
    "RegexpILike Case If Cast TryCast DataType DataTypeParam Add Sub Mul Div IntDiv Mod Neg DPipe "
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift Pow Interval "
    "IntervalSpan Var Collate AtTimeZone CurrentDate CurrentTime CurrentTimestamp Localtime "
    "Localtimestamp JSONExtract JSONExtractScalar JSONPath JSONPathRoot JSONPathKey JSONPathSubscript "
    "LimitOptions RollupClause Rollup Cube GroupingSets RespectNulls IgnoreNulls TsOrDsToTimestamp "
    "TsOrDsToDate".split()
)

TYPES = frozenset(
    "TINYINT SMALLINT INT BIGINT INT128 UTINYINT USMALLINT UINT UBIGINT FLOAT DOUBLE DECIMAL REAL "
    "NUMERIC MONEY BOOLEAN CHAR NCHAR VARCHAR NVARCHAR TEXT DATE DATE32 TIME TIMETZ TIMESTAMP "
    "TIMESTAMPTZ TIMESTAMPNTZ TIMESTAMPLTZ TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS DATETIME INTERVAL "
    "UUID YEAR".split()
)

_COMMON = frozenset(
    "ABS ACOS ASIN ATAN ATAN2 AVG CEIL CEILING CHAR_LENGTH COALESCE CONCAT COS COUNT CUME_DIST "
    "DEGREES DENSE_RANK EXP FIRST_VALUE FLOOR GREATEST LAG LAST_VALUE LEAD LEAST LEFT LENGTH LN LOG "
    "LOWER LTRIM MAX MIN MOD NTH_VALUE NTILE NULLIF PERCENT_RANK PI POWER RADIANS RANK REPLACE "
    "REVERSE RIGHT ROUND ROW_NUMBER RTRIM SIGN SIN SQRT SUBSTR SUBSTRING SUM TAN TRIM UPPER".split()
)
_STATISTICS = frozenset(
    "BIT_AND BIT_OR BOOL_AND BOOL_OR CORR COVAR_POP COVAR_SAMP EVERY MODE PERCENTILE_CONT "
    "PERCENTILE_DISC REGR_INTERCEPT REGR_R2 REGR_SLOPE STDDEV STDDEV_POP STDDEV_SAMP STRING_AGG "
    "VARIANCE VAR_POP VAR_SAMP".split()
)
FUNCTIONS: Mapping[str, frozenset[str]] = {
    "sqlite": _COMMON
    | frozenset(
        "CHAR DATE DATETIME GLOB GROUP_CONCAT HEX IFNULL IIF INSTR JSON_ARRAY_LENGTH JSON_EXTRACT "
        "JSON_TYPE JSON_VALID JULIANDAY LIKE LIKELIHOOD LIKELY LOG10 LOG2 STRFTIME TIME TIMEDIFF "
        "TOTAL TRUNC TYPEOF UNICODE UNIXEPOCH UNLIKELY".split()
    ),
    "postgres": _COMMON
    | _STATISTICS
    | frozenset(
        "AGE ASCII BTRIM CBRT CHR CONCAT_WS DATE_BIN DATE_PART DATE_TRUNC DIV EXTRACT INITCAP "
        "JUSTIFY_DAYS JUSTIFY_HOURS JUSTIFY_INTERVAL MAKE_DATE MAKE_INTERVAL MAKE_TIMESTAMP NOW "
        "OCTET_LENGTH OVERLAY POSITION REGEXP_MATCH REGEXP_REPLACE REGEXP_SUBSTR SPLIT_PART "
        "STARTS_WITH STRPOS TO_CHAR TO_DATE TO_NUMBER TO_TIMESTAMP TRANSLATE TRUNC WIDTH_BUCKET".split()
    ),
    "duckdb": _COMMON
    | _STATISTICS
    | frozenset(
        "AGE ANY_VALUE APPROX_COUNT_DISTINCT ARG_MAX ARG_MIN ASCII CBRT CHR CONCAT_WS CONTAINS "
        "COUNT_IF DATEDIFF DATEPART DATESUB DATETRUNC DATE_ADD DATE_DIFF DATE_PART DATE_SUB "
        "DATE_TRUNC DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR ENDS_WITH EPOCH EXTRACT FIRST HOUR "
        "IFNULL INSTR ISODOW ISOYEAR KURTOSIS LAST LAST_DAY LEVENSHTEIN LISTAGG LOG10 LOG2 MAKE_DATE "
        "MAKE_TIMESTAMP MEDIAN MINUTE MONTH MONTHNAME NOW POSITION PREFIX PRODUCT QUANTILE_CONT "
        "QUANTILE_DISC QUARTER REGEXP_EXTRACT REGEXP_FULL_MATCH REGEXP_MATCHES REGEXP_REPLACE SECOND "
        "SKEWNESS SPLIT_PART STARTS_WITH STRFTIME STRPOS STRPTIME SUFFIX TO_DAYS TO_HOURS TO_MINUTES "
        "TO_MONTHS TO_SECONDS TO_TIMESTAMP TO_YEARS TRANSLATE TRUNC TRY_STRPTIME TYPEOF WEEK WEEKDAY "
        "WEEKOFYEAR YEAR".split()
    ),
}
OTHER_DIALECTS = _COMMON  # in one that is not tested


def functions(dialect: str) -> frozenset[str]:
    """The names of the functions that may be called, in capitals, as they stand in the SQL that runs."""
    return FUNCTIONS.get(dialect, OTHER_DIALECTS)

# Perl DBI. Argument: the DSN. Cases come on stdin, results go to stdout: see ../drivers.py.
use strict;
use warnings;
use DBI qw(:sql_types);
use JSON::PP;

my ($dsn) = @ARGV;
my $postgres = $dsn =~ /^dbi:Pg/;
my $db = DBI->connect($dsn, '', '', { RaiseError => 1, PrintError => 0, AutoCommit => 1, sqlite_unicode => 1 });

sub bind_value {
    my ($statement, $place, $value) = @_;
    if (ref $value) {
        my $type = $postgres ? { pg_type => DBD::Pg::PG_BYTEA() } : SQL_BLOB;
        return $statement->bind_param($place, pack('H*', $value->{hex}), $type);
    }
    return $statement->bind_param($place, $value, SQL_INTEGER) if defined $value && $value =~ /^\d\z/;
    return $statement->bind_param($place, $value);
}

sub done {
    my ($step) = @_;
    my $rows = eval {
        if (!ref $step) {
            my %verbs = (begin => 'begin_work', commit => 'commit', rollback => 'rollback');
            my $verb = $verbs{$step};
            $db->$verb;
            return [];
        }
        my $statement = $db->prepare($step->{run});
        my $place = 0;
        bind_value($statement, ++$place, $_) for @{ $step->{with} };
        $statement->execute;
        $statement->{NUM_OF_FIELDS} ? $statement->fetchall_arrayref : [];
    };
    return defined $rows ? { rows => $rows } : { refused => "$@" };
}

my $json = JSON::PP->new->utf8;
my $cases = $json->decode(do { local $/; <STDIN> });
print $json->encode([ map { [ map { done($_) } @$_ ] } @$cases ]);

<?php
// PHP PDO. Argument: the DSN. Cases come on stdin, results go to stdout: see ../drivers.py.
declare(strict_types=1);

$db = new PDO($argv[1], null, null, [
    PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
    PDO::ATTR_STRINGIFY_FETCHES => true,
]);

function bind(PDOStatement $statement, int $place, mixed $value): void
{
    match (true) {
        is_object($value) => $statement->bindValue($place, hex2bin($value->hex), PDO::PARAM_LOB),
        is_int($value) => $statement->bindValue($place, $value, PDO::PARAM_INT),
        $value === null => $statement->bindValue($place, null, PDO::PARAM_NULL),
        default => $statement->bindValue($place, $value),
    };
}

function done(PDO $db, mixed $step): array
{
    try {
        if (is_string($step)) {
            match ($step) {
                'begin' => $db->beginTransaction(),
                'commit' => $db->commit(),
                'rollback' => $db->rollBack(),
            };
            return ['rows' => []];
        }
        $statement = $db->prepare($step->run);
        foreach ($step->with as $place => $value) {
            bind($statement, $place + 1, $value);
        }
        $statement->execute();
        return ['rows' => $statement->columnCount() ? $statement->fetchAll(PDO::FETCH_NUM) : []];
    } catch (PDOException $error) {
        return ['refused' => $error->getMessage()];
    }
}

$results = [];
foreach (json_decode(stream_get_contents(STDIN), false, 512, JSON_THROW_ON_ERROR) as $steps) {
    $results[] = array_map(fn ($step) => done($db, $step), $steps);
}
echo json_encode($results, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);

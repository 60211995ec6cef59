console.log('malc');
